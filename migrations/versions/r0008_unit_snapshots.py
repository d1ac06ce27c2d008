"""Bridges read a unit's state, one unit at a time, for agents that were away for very long."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TABLES = ("read_departments", "read_patients", "read_encounters", "read_waiting_room", "read_unit_commands")

GRANTS = """
GRANT SELECT ON {table} TO carespine_bridge;
CREATE POLICY of_one_unit ON {table} FOR SELECT TO carespine_bridge
    USING (unit_id = current_setting('carespine.unit', true));
"""


def upgrade() -> None:
    """Let bridges see the rows of the unit they have named, and no others."""
    for table in TABLES:
        op.execute(GRANTS.format(table=table))
    op.execute("GRANT SELECT ON projection_faults TO carespine_bridge")


def downgrade() -> None:
    """Not supported: go forward with a new revision."""
    raise NotImplementedError("restore the backup taken before the upgrade")
