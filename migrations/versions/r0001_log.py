"""The write side: roles, the partitioned log, receipts, claims, timers, ownership, dead letters, unit sessions."""

from __future__ import annotations

from alembic import context, op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ROLES = ("carespine_handlers", "carespine_projections", "carespine_gateway", "carespine_bridge", "carespine_desk")

SCHEMA = """
CREATE TABLE installation (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    partitions int NOT NULL CHECK (partitions BETWEEN 1 AND 99),
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE installation IS 'What is fixed for the life of this installation.';

CREATE TABLE log_partitions (
    partition int PRIMARY KEY,
    head bigint NOT NULL DEFAULT 0,
    epoch bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE log_partitions IS
    'Head position and fence of each partition: appending moves head where epoch is the owner''s '
    'own.';

CREATE TABLE events (
    partition int NOT NULL,
    position bigint NOT NULL,
    unit_id text NOT NULL,
    stream text NOT NULL,
    stream_version int NOT NULL,
    type text NOT NULL,
    type_version int NOT NULL,
    payload jsonb NOT NULL,
    sealed bytea,
    subject text,
    command_id uuid NOT NULL,
    causation_id uuid,
    correlation_id text NOT NULL,
    actor jsonb NOT NULL,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (partition, position),
    UNIQUE (partition, stream, stream_version)
) PARTITION BY LIST (partition);
CREATE INDEX events_by_unit ON events (partition, unit_id, position);

CREATE TABLE subject_keys (
    subject text PRIMARY KEY,
    unit_id text NOT NULL,
    master_key_id text NOT NULL,
    wrapped_key bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE subject_keys IS
    'Data key per person (or per unit), wrapped by the master key. Destroying a row erases what it '
    'sealed.';

CREATE TABLE command_receipts (
    command_id uuid PRIMARY KEY,
    unit_id text NOT NULL,
    partition int NOT NULL,
    type text NOT NULL,
    status text NOT NULL CHECK (status IN ('accepted', 'unchanged', 'refused', 'failed')),
    code text,
    detail text,
    about jsonb,
    result jsonb,
    position bigint,
    request_hash text NOT NULL,
    actor jsonb NOT NULL,
    causation_id uuid,
    dead_letter_id uuid,
    issued_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE command_receipts IS
    'One answer per command: inbox, audit of refusals, and what GET /api/commands/{id} '
    'reads.';

CREATE TABLE command_attempts (
    command_id uuid PRIMARY KEY,
    attempts int NOT NULL,
    first_at timestamptz NOT NULL DEFAULT now(),
    last_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE command_attempts IS
    'How often a redelivered command was taken up alone; only suspects of a crash stand '
    'here.';

CREATE TABLE claims (
    unit_id text NOT NULL,
    kind text NOT NULL,
    key bytea NOT NULL,
    holder text NOT NULL,
    PRIMARY KEY (unit_id, kind, key)
);
COMMENT ON TABLE claims IS
    'What is unique within a unit (MRN, open encounter): keyed hash of the value, and who holds '
    'it.';

CREATE TABLE timers (
    timer_id uuid PRIMARY KEY,
    partition int NOT NULL,
    due_at timestamptz NOT NULL,
    envelope jsonb NOT NULL
);
CREATE INDEX timers_due ON timers (partition, due_at);
COMMENT ON TABLE timers IS
    'Commands that are to be sent when their time comes; their ids make firing twice '
    'harmless.';

CREATE TABLE workers (
    role text NOT NULL,
    instance text NOT NULL,
    heartbeat_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (role, instance)
);
CREATE TABLE leases (
    role text NOT NULL,
    partition int NOT NULL,
    owner text,
    epoch bigint NOT NULL DEFAULT 0,
    expires_at timestamptz NOT NULL DEFAULT '-infinity',
    PRIMARY KEY (role, partition)
);
COMMENT ON TABLE leases IS 'Who owns a partition for a role (handlers, projections), until when, at which epoch.';

CREATE TABLE projection_checkpoints (
    partition int PRIMARY KEY,
    position bigint NOT NULL DEFAULT 0,
    epoch bigint NOT NULL DEFAULT 0,
    projected_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE projection_checkpoints IS
    'Up to where the read tables know the log; what a unit or caller may be told '
    'of.';

CREATE TABLE stream_blocks (
    partition int NOT NULL,
    stream text NOT NULL,
    block_id uuid NOT NULL,
    letters int NOT NULL DEFAULT 1,
    blocked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (partition, stream)
);
COMMENT ON TABLE stream_blocks IS
    'Streams with an unresolved dead letter: what follows is parked behind it. letters = issued so far, '
    'the first among them.';

CREATE TABLE dead_letters (
    letter_id uuid PRIMARY KEY,
    command_id uuid,
    unit_id text,
    partition int,
    stream text,
    block_id uuid,
    seq int NOT NULL DEFAULT 0,
    type text,
    reason text NOT NULL,
    error_type text,
    error_stack text,
    fingerprint text NOT NULL,
    origin text NOT NULL,
    attempts int NOT NULL DEFAULT 1,
    code_version text NOT NULL,
    status text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'replaying', 'replayed', 'discarded')),
    resolution text,
    envelope jsonb NOT NULL,
    sealed bytea,
    subject text,
    first_failed_at timestamptz NOT NULL,
    last_failed_at timestamptz NOT NULL,
    filed_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX dead_letters_open ON dead_letters (status, filed_at, letter_id);
CREATE INDEX dead_letters_block ON dead_letters (block_id, seq);
COMMENT ON TABLE dead_letters IS 'What could not be handled, with why; the payload is sealed like the log.';

CREATE TABLE replays (
    run_id uuid PRIMARY KEY,
    requested_by text NOT NULL,
    reason text NOT NULL,
    status text NOT NULL DEFAULT 'running' CHECK (status IN ('running', 'done', 'stopped')),
    selection uuid[] NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);
CREATE TABLE replay_items (
    run_id uuid NOT NULL REFERENCES replays,
    letter_id uuid NOT NULL REFERENCES dead_letters,
    ord int NOT NULL,
    status text NOT NULL DEFAULT 'waiting'
        CHECK (status IN ('waiting', 'sent', 'applied', 'already-applied', 'refused', 'failed', 'skipped')),
    sent_at timestamptz,
    settled_at timestamptz,
    PRIMARY KEY (run_id, letter_id)
);
CREATE TABLE dead_letter_ledger (
    entry bigint PRIMARY KEY,
    at timestamptz NOT NULL,
    actor text NOT NULL,
    act text NOT NULL,
    letter_id uuid,
    run_id uuid,
    reason text NOT NULL,
    previous_hash bytea NOT NULL,
    hash bytea NOT NULL
);
COMMENT ON TABLE dead_letter_ledger IS
    'Every act on a dead letter, append-only, each entry carrying the hash of the one '
    'before.';

CREATE TABLE unit_sessions (
    unit_id text PRIMARY KEY,
    epoch bigint NOT NULL,
    bridge text NOT NULL,
    connected boolean NOT NULL,
    agent_version text,
    acked_position bigint NOT NULL DEFAULT 0,
    connected_at timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now(),
    disconnected_at timestamptz
);
COMMENT ON TABLE unit_sessions IS
    'The one session that may speak for a unit: each hello takes epoch + 1, older epochs match '
    'nothing.';
"""

GRANTS = """
GRANT SELECT ON installation TO {all_roles};
GRANT SELECT, UPDATE ON log_partitions TO carespine_handlers;
GRANT SELECT, INSERT ON events TO carespine_handlers;
GRANT SELECT, INSERT ON subject_keys TO carespine_handlers, carespine_desk;
GRANT SELECT, INSERT, UPDATE ON command_receipts, command_attempts TO carespine_handlers;
GRANT SELECT, INSERT, UPDATE, DELETE ON claims, timers TO carespine_handlers;
GRANT DELETE ON command_attempts TO carespine_handlers;
GRANT SELECT, INSERT, UPDATE, DELETE ON workers, leases TO carespine_handlers, carespine_projections;
GRANT SELECT, INSERT, UPDATE, DELETE ON stream_blocks TO carespine_handlers, carespine_desk;
GRANT SELECT ON events, log_partitions, subject_keys TO carespine_projections, carespine_bridge;
GRANT SELECT, UPDATE ON projection_checkpoints TO carespine_projections;
GRANT SELECT ON projection_checkpoints TO carespine_bridge, carespine_gateway, carespine_desk;
GRANT SELECT ON log_partitions, leases, workers TO carespine_gateway;
GRANT SELECT ON command_receipts TO carespine_gateway, carespine_desk, carespine_bridge;
GRANT INSERT ON command_receipts TO carespine_desk;
GRANT SELECT, INSERT, UPDATE, DELETE ON unit_sessions TO carespine_bridge;
GRANT SELECT ON unit_sessions TO carespine_gateway;
GRANT SELECT, INSERT, UPDATE ON dead_letters, replays, replay_items, dead_letter_ledger TO carespine_desk;
REVOKE UPDATE ON dead_letter_ledger FROM carespine_desk;

ALTER TABLE command_receipts ENABLE ROW LEVEL SECURITY;
CREATE POLICY all_rows ON command_receipts TO carespine_handlers, carespine_desk, carespine_bridge
    USING (true) WITH CHECK (true);
CREATE POLICY own_unit ON command_receipts FOR SELECT TO carespine_gateway
    USING (current_setting('carespine.unit', true) IN (unit_id, '*'));
"""


def upgrade() -> None:
    """Create everything the handlers, bridges and the dead-letter desk write."""
    partitions = context.config.attributes.get("partitions", 16)
    for role in ROLES:
        # Roles belong to the cluster, not to the database; two databases may create them at the same moment.
        op.execute(
            f"DO $$ BEGIN CREATE ROLE {role} NOLOGIN; "
            "EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
        )
        op.execute(f"GRANT {role} TO CURRENT_USER")
        op.execute(f"GRANT USAGE ON SCHEMA public TO {role}")
    op.execute(SCHEMA)
    op.execute(f"INSERT INTO installation (partitions) VALUES ({partitions:d})")  # noqa: S608 - a number
    for partition in range(partitions):
        op.execute(f"CREATE TABLE events_p{partition:02d} PARTITION OF events FOR VALUES IN ({partition})")
    op.execute(f"INSERT INTO log_partitions (partition) SELECT generate_series(0, {partitions - 1})")
    op.execute(f"INSERT INTO projection_checkpoints (partition) SELECT generate_series(0, {partitions - 1})")
    for role in ("handlers", "projections"):
        # Both are ours, not input.
        op.execute(f"INSERT INTO leases (role, partition) SELECT '{role}', generate_series(0, {partitions - 1})")
    op.execute(GRANTS.format(all_roles=", ".join(ROLES)))


def downgrade() -> None:
    """Not supported: go forward with a new revision."""
    raise NotImplementedError("restore the backup taken before the upgrade")
