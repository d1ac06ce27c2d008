"""Unit commands: superseding, trying again, witnesses, letters on their way to the desk."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

SCHEMA = """
CREATE TABLE unit_tallies (
    unit_id text NOT NULL,
    kind text NOT NULL,
    amount int NOT NULL,
    PRIMARY KEY (unit_id, kind)
);
COMMENT ON TABLE unit_tallies IS
    'How many of something a unit has (open unit commands), counted in the transaction that changes it.';
INSERT INTO unit_tallies (unit_id, kind, amount)
SELECT q.unit_id, 'open_unit_commands', count(*) FROM events q
WHERE q.type = 'unit_command.UnitCommandQueued' AND NOT EXISTS (
    SELECT FROM events e WHERE e.partition = q.partition AND e.stream = q.stream
    AND e.stream_version > q.stream_version)
GROUP BY q.unit_id;

CREATE TABLE letters_out (
    entry bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    letter_id uuid NOT NULL,
    partition int NOT NULL,
    routing_key text NOT NULL,
    body text NOT NULL
);
CREATE INDEX letters_out_of_partition ON letters_out (partition, entry);
COMMENT ON TABLE letters_out IS
    'Letters on their way to the desk, written with what they tell of; gone once the broker has them.';

CREATE TABLE unit_command_deliveries (
    unit_id text NOT NULL,
    unit_command_id uuid NOT NULL,
    attempt int NOT NULL,
    epoch bigint NOT NULL,
    sent_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (unit_command_id, attempt, unit_id)
);
COMMENT ON TABLE unit_command_deliveries IS
    'When a unit acknowledged that a command is on its disk, and in which session: the bridges write it.';

ALTER TABLE read_unit_commands
    ADD COLUMN attempt int NOT NULL DEFAULT 1,
    ADD COLUMN supersede_key text,
    ADD COLUMN superseded_by uuid,
    ADD COLUMN history jsonb NOT NULL DEFAULT '[]';
UPDATE read_unit_commands SET history = jsonb_build_array(jsonb_build_object(
    'state', 'logged', 'at', queued_at, 'position', queued_position, 'attempt', 1));
CREATE INDEX read_unit_commands_by_status ON read_unit_commands (unit_id, status, queued_position);

ALTER TABLE replays ADD COLUMN confirmed boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN replays.confirmed IS
    'Whoever asked has said that unit commands may run again although they may have been done.';
"""

GRANTS = """
GRANT SELECT, INSERT, UPDATE ON unit_tallies TO carespine_handlers;
GRANT SELECT, INSERT, DELETE ON letters_out TO carespine_handlers;
GRANT SELECT, INSERT, UPDATE ON unit_command_deliveries TO carespine_bridge;
GRANT SELECT ON unit_command_deliveries TO carespine_gateway;
ALTER TABLE unit_command_deliveries ENABLE ROW LEVEL SECURITY;
CREATE POLICY all_rows ON unit_command_deliveries TO carespine_bridge USING (true) WITH CHECK (true);
CREATE POLICY own_unit ON unit_command_deliveries FOR SELECT TO carespine_gateway
    USING (current_setting('carespine.unit', true) IN (unit_id, '*'));
"""


def upgrade() -> None:
    """Create it."""
    op.execute(SCHEMA)
    op.execute(GRANTS)


def downgrade() -> None:
    """Not supported: go forward with a new revision."""
    raise NotImplementedError("restore the backup taken before the upgrade")
