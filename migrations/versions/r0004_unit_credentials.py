"""Units' own keys: enrolment codes, public keys, revocation; and which signed assertions were seen before."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SCHEMA = """
CREATE TABLE read_unit_keys (
    unit_id text NOT NULL,
    key_id text NOT NULL,
    partition int NOT NULL,
    public_key text NOT NULL,
    code_hash text,
    replaces text,
    registered_at timestamptz NOT NULL,
    valid_until timestamptz,
    revoked_at timestamptz,
    revoked_because text,
    PRIMARY KEY (unit_id, key_id)
);
COMMENT ON COLUMN read_unit_keys.valid_until IS 'End of its time, where it was replaced; null: it was not.';

CREATE TABLE read_unit_revocations (
    unit_id text NOT NULL,
    partition int NOT NULL,
    position bigint NOT NULL,
    key_id text,
    not_before timestamptz NOT NULL,
    PRIMARY KEY (unit_id, position)
);
CREATE INDEX read_unit_revocations_latest ON read_unit_revocations (partition, position);
COMMENT ON TABLE read_unit_revocations IS
    'Every revocation: no token of the unit that was issued before not_before is good. key_id null: all of its keys.';

CREATE TABLE read_enrolment_codes (
    unit_id text NOT NULL,
    code_hash text NOT NULL,
    partition int NOT NULL,
    issued_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    key_id text,
    used_at timestamptz,
    void_at timestamptz,
    PRIMARY KEY (unit_id, code_hash)
);
COMMENT ON COLUMN read_enrolment_codes.key_id IS 'The key registered with it; null: it is unused.';

CREATE TABLE unit_assertions_seen (
    unit_id text NOT NULL,
    assertion bytea NOT NULL,
    until timestamptz NOT NULL,
    PRIMARY KEY (unit_id, assertion)
);
CREATE INDEX unit_assertions_over ON unit_assertions_seen (until);
COMMENT ON TABLE unit_assertions_seen IS
    'Hashes of assertions that were taken, until they would be too old to be taken: none is taken twice.';
"""

READ_TABLES = ("read_unit_keys", "read_unit_revocations", "read_enrolment_codes")

GRANTS = """
GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO carespine_projections;
GRANT SELECT ON {table} TO carespine_gateway, carespine_bridge;
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
CREATE POLICY all_rows ON {table} TO carespine_projections USING (true) WITH CHECK (true);
CREATE POLICY every_unit ON {table} FOR SELECT TO carespine_bridge USING (true);
CREATE POLICY own_unit ON {table} FOR SELECT TO carespine_gateway
    USING (current_setting('carespine.unit', true) IN (unit_id, '*'));
"""

MORE_GRANTS = """
GRANT SELECT, INSERT, UPDATE, DELETE ON unit_assertions_seen TO carespine_gateway, carespine_bridge;
"""


def upgrade() -> None:
    """Create the tables, empty: the projections fill what is read, gateways and bridges note what they have seen."""
    op.execute(SCHEMA)
    for table in READ_TABLES:
        op.execute(GRANTS.format(table=table))
    op.execute(MORE_GRANTS)


def downgrade() -> None:
    """Not supported: go forward with a new revision."""
    raise NotImplementedError("restore the backup taken before the upgrade")
