"""What portals may read of the log: the clear part of a few kinds of events, unit by unit."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

SCHEMA = """
CREATE VIEW portal_log WITH (security_barrier) AS
SELECT partition, position, unit_id, stream, stream_version, type, type_version, payload, command_id, occurred_at,
    recorded_at
FROM events
WHERE current_setting('carespine.unit', true) IN (unit_id, '*') AND type ~ '^(queue|encounter|patient|unit)\\.';
COMMENT ON VIEW portal_log IS
    'The log as portals resume from it: clear fields of the contexts they show, of the unit the session names. Sealed '
    'fields are not in it.';
GRANT SELECT ON portal_log TO carespine_bridge, carespine_gateway;
"""


def upgrade() -> None:
    """Create it."""
    op.execute(SCHEMA)


def downgrade() -> None:
    """Not supported: go forward with a new revision."""
    raise NotImplementedError("restore the backup taken before the upgrade")
