"""Tasks: what somebody at a unit is to do."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

SCHEMA = """
CREATE TABLE read_tasks (
    task_id uuid NOT NULL,
    unit_id text NOT NULL,
    partition int NOT NULL,
    created_position bigint NOT NULL,
    kind text NOT NULL,
    status text NOT NULL,
    open boolean NOT NULL,
    title text,
    description text,
    patient_id uuid,
    encounter_id uuid,
    department text,
    priority text NOT NULL,
    assignee text,
    due_at timestamptz,
    overdue boolean NOT NULL,
    business_status text,
    cause jsonb,
    outcome text,
    last_words text,
    erased boolean NOT NULL,
    version int NOT NULL,
    created_at timestamptz NOT NULL,
    started_at timestamptz,
    ended_at timestamptz,
    PRIMARY KEY (task_id, unit_id)
) WITH (fillfactor = 80);
CREATE INDEX read_tasks_of_unit ON read_tasks (unit_id, created_position);
CREATE INDEX read_tasks_open ON read_tasks (unit_id, created_position) WHERE open;
CREATE INDEX read_tasks_of_status ON read_tasks (unit_id, status, created_position);
CREATE INDEX read_tasks_of_assignee ON read_tasks (unit_id, assignee, created_position);
CREATE INDEX read_tasks_of_patient ON read_tasks (patient_id, created_position);
"""

READ_TABLES = ("read_tasks",)
"""Filled by the projections from the log."""

GRANTS = """
GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO carespine_projections;
GRANT SELECT ON {table} TO carespine_gateway;
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
CREATE POLICY all_rows ON {table} TO carespine_projections USING (true) WITH CHECK (true);
CREATE POLICY own_unit ON {table} FOR SELECT TO carespine_gateway
    USING (current_setting('carespine.unit', true) IN (unit_id, '*'));
"""


def upgrade() -> None:
    """Create it."""
    op.execute(SCHEMA)
    for table in READ_TABLES:
        op.execute(GRANTS.format(table=table))


def downgrade() -> None:
    """Not supported: go forward with a new revision."""
    raise NotImplementedError("restore the backup taken before the upgrade")
