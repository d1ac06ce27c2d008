"""The rows of `unit_sessions` as bridges write them: one statement for each thing that can happen to many of them.

Every write says `epoch = mine`: a row that does not match belongs to a newer session. When they run is
`ws_bridge.unit_sessions`'.
"""

from __future__ import annotations

from typing import Final

LEASE_SECONDS: Final = 45.0
"""How long a bridge may speak to a unit on the strength of one renewal."""
ORDERLY: Final = 3
"""So many takeovers between two agents within `TAKEOVER_SECONDS` are no longer an orderly change of machines."""
TAKEOVER_SECONDS: Final = 60
CONTESTED_SECONDS: Final = 300
"""A link stays contested for so long after the last attempt to take it."""

OPEN: Final = """
WITH asked AS (
    SELECT * FROM unnest(%(units)s::text[], %(versions)s::text[], %(positions)s::bigint[], %(instances)s::uuid[])
        AS a (unit_id, agent_version, position, instance)
), held AS (
    SELECT s.unit_id, s.instance AS holder, s.incumbent, coalesce(s.contested_until > now(), false) AS disputed,
        ARRAY(SELECT t FROM unnest(s.takeovers) t WHERE t > now() - make_interval(secs => %(window)s)) AS recent,
        s.connected AND coalesce(s.lease_until > now(), false) AS live
    FROM unit_sessions s JOIN asked USING (unit_id) ORDER BY unit_id FOR UPDATE OF s
), known AS (
    SELECT a.*, u.status, u.partition, p.head AS log_head, c.position AS visible,
        coalesce(h.live AND h.holder <> a.instance, false) AS rival, coalesce(h.recent, '{}') AS recent, h.disputed,
        CASE WHEN h.disputed OR cardinality(h.recent) > 0 THEN h.incumbent ELSE h.holder END AS first
    FROM asked a
    JOIN read_units u USING (unit_id)
    JOIN log_partitions p ON p.partition = u.partition
    JOIN projection_checkpoints c ON c.partition = u.partition
    LEFT JOIN held h USING (unit_id)
), judged AS (
    SELECT k.*, status = 'active' AND position <= log_head AS fit,
        rival AND instance <> first AND (disputed OR cardinality(recent) + 1 >= %(orderly)s) AS contested
    FROM known k
), turned_away AS (
    UPDATE unit_sessions s SET contested_until = now() + make_interval(secs => %(contested)s), incumbent = j.first
    FROM judged j WHERE j.contested AND s.unit_id = j.unit_id
), opened AS (
    INSERT INTO unit_sessions AS s (unit_id, epoch, bridge, connected, agent_version, acked_position, instance,
        lease_until, takeovers, incumbent)
    SELECT unit_id, 1, %(bridge)s, true, agent_version, position, instance,
        now() + make_interval(secs => %(lease)s), CASE WHEN rival THEN recent || now() ELSE recent END,
        CASE WHEN rival OR disputed OR cardinality(recent) > 0 THEN first END
    FROM judged WHERE fit AND contested IS NOT TRUE ORDER BY unit_id
    ON CONFLICT (unit_id) DO UPDATE SET epoch = s.epoch + 1, bridge = excluded.bridge, connected = true,
        agent_version = excluded.agent_version, acked_position = excluded.acked_position,
        instance = excluded.instance, lease_until = excluded.lease_until, takeovers = excluded.takeovers,
        incumbent = excluded.incumbent, connected_at = now(), seen_at = now(), disconnected_at = NULL
    RETURNING unit_id, epoch
)
SELECT j.unit_id, CASE WHEN j.contested THEN 'contested' ELSE j.status END, j.partition, j.position <= j.log_head,
    o.epoch, coalesce((
    SELECT max(e.position) FROM events e
    WHERE e.partition = j.partition AND e.unit_id = j.unit_id AND e.position <= j.visible), 0)
FROM judged j LEFT JOIN opened o USING (unit_id)
"""
"""A hello takes epoch + 1. It is turned away where another agent's live link would be taken for the third time within
a minute: whose the link was when that began (`incumbent`) keeps it.
"""

_OURS: Final = """
WITH moved AS (
    SELECT * FROM unnest(%(units)s::text[], %(epochs)s::bigint[], %(positions)s::bigint[])
        AS m (unit_id, epoch, position)
), ours AS (
    SELECT m.* FROM unit_sessions s JOIN moved m USING (unit_id, epoch) ORDER BY unit_id FOR UPDATE OF s
)
UPDATE unit_sessions s SET seen_at = now(), acked_position = greatest(s.acked_position, m.position)"""
"""Rows are locked in the order of their units, as by every other statement: two bridges never wait for one another."""
MOVE: Final = f"{_OURS} FROM ours m WHERE s.unit_id = m.unit_id RETURNING s.unit_id"
RENEW: Final = f"""{_OURS}, lease_until = now() + make_interval(secs => %(lease)s)
FROM ours m WHERE s.unit_id = m.unit_id RETURNING s.unit_id"""
CLOSE: Final = f"""{_OURS}, connected = false, disconnected_at = now(), lease_until = now()
FROM ours m WHERE s.unit_id = m.unit_id"""

NEWER: Final = "SELECT unit_id, epoch FROM unit_sessions WHERE unit_id = ANY(%s)"
