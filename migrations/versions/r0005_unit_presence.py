"""Sessions of units: leases, contested identities, presence, and how far behind a unit's feed is."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

SCHEMA = """
ALTER TABLE unit_sessions
    ADD COLUMN instance uuid,
    ADD COLUMN lease_until timestamptz,
    ADD COLUMN takeovers timestamptz[] NOT NULL DEFAULT '{}',
    ADD COLUMN incumbent uuid,
    ADD COLUMN contested_until timestamptz,
    ADD COLUMN unreachable_since timestamptz,
    SET (fillfactor = 60);
COMMENT ON COLUMN unit_sessions.instance IS 'Which agent holds the link, or held it last: made once with its store.';
COMMENT ON COLUMN unit_sessions.lease_until IS
    'Until then the bridge may speak to the unit; renewed while it holds the link.';
COMMENT ON COLUMN unit_sessions.takeovers IS
    'When, lately, one agent took the link from another that still had it.';
COMMENT ON COLUMN unit_sessions.incumbent IS 'Whose the link was before the takeovers: it keeps a contested link.';
COMMENT ON COLUMN unit_sessions.unreachable_since IS
    'Since when the unit is told to be unreachable; null while it is not.';

ALTER TABLE read_units
    ADD COLUMN reachable boolean NOT NULL DEFAULT true,
    ADD COLUMN unreachable_since timestamptz;

CREATE FUNCTION unit_feed_behind(
    of_unit text, of_partition int, acked bigint, counted int, OUT events bigint, OUT since timestamptz
) LANGUAGE sql STABLE STRICT SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH visible AS (SELECT position FROM projection_checkpoints WHERE partition = of_partition)
    SELECT
        (SELECT count(*) FROM (
            SELECT 1 FROM events
            WHERE partition = of_partition AND unit_id = of_unit AND position > acked
                AND position <= (SELECT position FROM visible)
            LIMIT counted) AS missing),
        (SELECT recorded_at FROM events
         WHERE partition = of_partition AND unit_id = of_unit AND position > acked
            AND position <= (SELECT position FROM visible)
         ORDER BY position LIMIT 1)
$$;
COMMENT ON FUNCTION unit_feed_behind IS
    'How many visible events of a unit lie beyond what it acknowledged, and when the first was recorded: for readers '
    'that may not see the events themselves.';
REVOKE ALL ON FUNCTION unit_feed_behind FROM PUBLIC;
GRANT EXECUTE ON FUNCTION unit_feed_behind TO carespine_gateway, carespine_bridge;
"""


def upgrade() -> None:
    """Create it."""
    op.execute(SCHEMA)


def downgrade() -> None:
    """Not supported: go forward with a new revision."""
    raise NotImplementedError("restore the backup taken before the upgrade")
