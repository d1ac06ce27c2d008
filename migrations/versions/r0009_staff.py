"""Staff: accounts as the log tells of them, and what the log never holds: passwords, sessions, tokens, lockouts.

What is secret is a gateway's alone. Bridges see which sessions have ended and nothing else of them.
"""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

SCHEMA = """
CREATE TABLE read_staff (
    account_id uuid PRIMARY KEY,
    unit_id text NOT NULL,
    partition int NOT NULL,
    code_hash text,
    invited_at timestamptz,
    expires_at timestamptz,
    activated_at timestamptz,
    suspended_at timestamptz,
    suspended_because text
);
CREATE INDEX read_staff_of_unit ON read_staff (unit_id, account_id);
CREATE INDEX read_staff_invited ON read_staff (unit_id, code_hash) WHERE code_hash IS NOT NULL;
COMMENT ON COLUMN read_staff.activated_at IS 'Null: invited, and nobody has registered.';

CREATE TABLE read_staff_roles (
    account_id uuid NOT NULL,
    role text NOT NULL,
    unit_id text NOT NULL,
    partition int NOT NULL,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz,
    revoked_at timestamptz,
    PRIMARY KEY (account_id, role)
);

CREATE TABLE read_staff_revocations (
    account_id uuid NOT NULL,
    unit_id text NOT NULL,
    partition int NOT NULL,
    position bigint NOT NULL,
    not_before timestamptz NOT NULL,
    PRIMARY KEY (account_id, position)
);
CREATE INDEX read_staff_revocations_latest ON read_staff_revocations (partition, position);
COMMENT ON TABLE read_staff_revocations IS
    'Suspensions and revoked roles: no access token of the account that was issued before not_before is good.';

CREATE TABLE staff_accounts (
    account_id uuid PRIMARY KEY,
    unit_id text NOT NULL,
    address_hash bytea NOT NULL,
    sealed bytea NOT NULL,
    password_hash text NOT NULL,
    password_at timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (unit_id, address_hash)
);
COMMENT ON COLUMN staff_accounts.address_hash IS 'Keyed hash of unit and address: found by it, never read from it.';
COMMENT ON COLUMN staff_accounts.sealed IS 'Address and name, encrypted under the key of staff, bound to the account.';
COMMENT ON COLUMN staff_accounts.password_hash IS 'bcrypt.';

CREATE FUNCTION staff_key(by_master text, wrapped bytea, OUT master_key_id text, OUT wrapped_key bytea)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    IF wrapped IS NOT NULL THEN
        INSERT INTO public.subject_keys (subject, unit_id, master_key_id, wrapped_key)
        VALUES ('staff', '-', by_master, wrapped) ON CONFLICT (subject) DO NOTHING;
    END IF;
    SELECT k.master_key_id, k.wrapped_key INTO master_key_id, wrapped_key
    FROM public.subject_keys k WHERE k.subject = 'staff';
END $$;
REVOKE ALL ON FUNCTION staff_key FROM PUBLIC;
GRANT EXECUTE ON FUNCTION staff_key TO carespine_gateway;
COMMENT ON FUNCTION staff_key IS
    'The key of staff addresses, made of what is given if there is none: a gateway needs no other key of that table.';

CREATE TABLE staff_sessions (
    session_id uuid PRIMARY KEY,
    account_id uuid NOT NULL,
    unit_id text NOT NULL,
    started_at timestamptz NOT NULL,
    seen_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    ended_at timestamptz,
    ended_because text
);
CREATE INDEX staff_sessions_of_account ON staff_sessions (account_id) WHERE ended_at IS NULL;
CREATE INDEX staff_sessions_ended ON staff_sessions (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX staff_sessions_over ON staff_sessions (expires_at);
COMMENT ON COLUMN staff_sessions.seen_at IS 'When tokens were last taken for it; idle for too long, it ends.';
COMMENT ON COLUMN staff_sessions.expires_at IS 'However busy, it ends then.';
COMMENT ON COLUMN staff_sessions.ended_because IS 'logout, everywhere, or why a refresh token was not taken.';

CREATE TABLE staff_refresh_tokens (
    token_hash bytea PRIMARY KEY,
    session_id uuid NOT NULL REFERENCES staff_sessions ON DELETE CASCADE,
    issued_at timestamptz NOT NULL,
    used_at timestamptz
);
CREATE INDEX staff_refresh_tokens_of_session ON staff_refresh_tokens (session_id);
COMMENT ON TABLE staff_refresh_tokens IS
    'SHA-256 of 256 random bits each. One of a session is unused; whoever shows a used one ends the session.';

CREATE TABLE staff_attempts (
    who bytea PRIMARY KEY,
    failures int NOT NULL,
    last_at timestamptz NOT NULL,
    locked_until timestamptz,
    was_locked boolean NOT NULL DEFAULT false
);
CREATE INDEX staff_attempts_old ON staff_attempts (last_at);
COMMENT ON TABLE staff_attempts IS
    'Wrong passwords by keyed hash of unit and address, whether or not there is such an account.';
COMMENT ON COLUMN staff_attempts.was_locked IS 'Whether the latest attempt came while it was locked.';
"""

READ_TABLES = ("read_staff", "read_staff_roles", "read_staff_revocations")

GRANTS = """
GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO carespine_projections;
GRANT SELECT ON {table} TO carespine_gateway;
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
CREATE POLICY all_rows ON {table} TO carespine_projections USING (true) WITH CHECK (true);
CREATE POLICY own_unit ON {table} FOR SELECT TO carespine_gateway
    USING (current_setting('carespine.unit', true) IN (unit_id, '*'));
"""

MORE_GRANTS = """
GRANT SELECT ON read_staff_revocations TO carespine_bridge;
CREATE POLICY every_unit ON read_staff_revocations FOR SELECT TO carespine_bridge USING (true);
GRANT SELECT (session_id, ended_at) ON staff_sessions TO carespine_bridge;
GRANT SELECT, INSERT, DELETE ON staff_accounts TO carespine_gateway;
GRANT UPDATE (password_hash, password_at) ON staff_accounts TO carespine_gateway;
GRANT SELECT, INSERT, DELETE ON staff_sessions TO carespine_gateway;
GRANT UPDATE (seen_at, ended_at, ended_because) ON staff_sessions TO carespine_gateway;
GRANT SELECT, INSERT, DELETE ON staff_refresh_tokens TO carespine_gateway;
GRANT UPDATE (used_at) ON staff_refresh_tokens TO carespine_gateway;
GRANT SELECT, INSERT, UPDATE, DELETE ON staff_attempts TO carespine_gateway;
"""


def upgrade() -> None:
    """Create the tables, empty."""
    op.execute(SCHEMA)
    for table in READ_TABLES:
        op.execute(GRANTS.format(table=table))
    op.execute(MORE_GRANTS)


def downgrade() -> None:
    """Not supported: go forward with a new revision."""
    raise NotImplementedError("restore the backup taken before the upgrade")
