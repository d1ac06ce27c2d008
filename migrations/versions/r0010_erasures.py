"""Erasure: who was erased, what was purged where, and data keys that are destroyed but never made again."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

ROLES = ("carespine_erasure", "carespine_keys")

SCHEMA = """
CREATE TABLE erasures (
    subject text PRIMARY KEY,
    patient_id uuid NOT NULL UNIQUE,
    unit_id text NOT NULL,
    partition int NOT NULL,
    position bigint NOT NULL,
    command_id uuid NOT NULL,
    basis text NOT NULL,
    requested_by text NOT NULL,
    keys_destroyed int NOT NULL DEFAULT 0,
    erased_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    completed_at timestamptz,
    awaits text[] NOT NULL DEFAULT '{}'
);
CREATE INDEX erasures_open ON erasures (erased_at) WHERE completed_at IS NULL;
CREATE INDEX erasures_lately ON erasures (erased_at);
COMMENT ON TABLE erasures IS
    'Persons whose key was destroyed, written in the transaction that destroyed it. No key is made for them again.';

CREATE TABLE erasure_places (
    subject text NOT NULL REFERENCES erasures,
    unit_id text NOT NULL,
    place text NOT NULL,
    instance text NOT NULL DEFAULT '',
    count int NOT NULL,
    purged_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (subject, place, instance)
);
COMMENT ON TABLE erasure_places IS
    'What was purged of a person, place by place; the signed report is made of it. instance: whose cache it was.';

CREATE FUNCTION no_key_for_the_erased() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
BEGIN
    -- Held until the end of the transaction, like that of the one that erases: neither can pass the other unseen.
    PERFORM pg_advisory_xact_lock(hashtextextended(NEW.subject, 12));
    IF EXISTS (SELECT FROM erasures WHERE subject = NEW.subject) THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER no_key_for_the_erased BEFORE INSERT ON subject_keys
    FOR EACH ROW EXECUTE FUNCTION no_key_for_the_erased();

CREATE FUNCTION destroy_subject_key(of_subject text) RETURNS int LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
DECLARE
    destroyed int;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(of_subject, 12));
    IF NOT EXISTS (SELECT FROM erasures WHERE subject = of_subject) THEN
        RAISE EXCEPTION 'nobody of that id is being erased';
    END IF;
    DELETE FROM subject_keys WHERE subject = of_subject;
    GET DIAGNOSTICS destroyed = ROW_COUNT;
    UPDATE erasures SET keys_destroyed = keys_destroyed + destroyed WHERE subject = of_subject;
    RETURN destroyed;
END $$;
COMMENT ON FUNCTION destroy_subject_key IS
    'The only way for the handlers to destroy a key: of somebody whose erasure stands in the same transaction.';
REVOKE ALL ON FUNCTION destroy_subject_key FROM PUBLIC;
"""

READ_TABLES = ("read_patients", "read_encounters", "read_tasks", "read_unit_commands")
"""Tables with a person's words in them."""

GRANTS = """
GRANT SELECT, INSERT ON erasures TO carespine_handlers;
GRANT EXECUTE ON FUNCTION destroy_subject_key TO carespine_handlers;
GRANT SELECT ON erasures TO carespine_projections, carespine_gateway, carespine_bridge, carespine_desk;
GRANT SELECT, UPDATE ON erasures TO carespine_erasure;
GRANT SELECT, INSERT, UPDATE ON erasure_places TO carespine_erasure;
GRANT SELECT, INSERT ON erasure_places TO carespine_handlers, carespine_projections, carespine_bridge,
    carespine_gateway;
GRANT SELECT ON projection_checkpoints, unit_sessions, workers, leases, installation TO carespine_erasure;
GRANT SELECT (partition, stream, type, payload, command_id) ON events TO carespine_erasure;
GRANT SELECT, UPDATE ON dead_letters, command_receipts TO carespine_erasure;
GRANT SELECT ON letters_out, subject_keys TO carespine_erasure;
GRANT SELECT, DELETE ON stream_blocks TO carespine_erasure;
GRANT SELECT, UPDATE ON subject_keys TO carespine_keys;
CREATE POLICY erasing ON command_receipts TO carespine_erasure USING (true) WITH CHECK (true);
ALTER TABLE erasures ENABLE ROW LEVEL SECURITY;
ALTER TABLE erasure_places ENABLE ROW LEVEL SECURITY;
CREATE POLICY all_rows ON erasures TO carespine_handlers, carespine_projections, carespine_bridge, carespine_desk,
    carespine_erasure USING (true) WITH CHECK (true);
CREATE POLICY all_rows ON erasure_places TO carespine_handlers, carespine_projections, carespine_bridge,
    carespine_erasure USING (true) WITH CHECK (true);
CREATE POLICY own_unit ON erasures FOR SELECT TO carespine_gateway
    USING (current_setting('carespine.unit', true) IN (unit_id, '*'));
CREATE POLICY own_unit ON erasure_places FOR SELECT TO carespine_gateway
    USING (current_setting('carespine.unit', true) IN (unit_id, '*'));
CREATE POLICY own_cache ON erasure_places FOR INSERT TO carespine_gateway WITH CHECK (place = 'cache');
"""

OF_A_READ_TABLE = """
GRANT SELECT, UPDATE ON {table} TO carespine_erasure;
CREATE POLICY erasing ON {table} TO carespine_erasure USING (true) WITH CHECK (true);
"""


def upgrade() -> None:
    """Create it."""
    for role in ROLES:
        # Roles belong to the cluster, not to the database; two databases may create them at the same moment.
        op.execute(
            f"DO $$ BEGIN CREATE ROLE {role} NOLOGIN; "
            "EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
        )
        op.execute(f"GRANT {role} TO CURRENT_USER")
        op.execute(f"GRANT USAGE ON SCHEMA public TO {role}")
    op.execute(SCHEMA)
    op.execute(GRANTS)
    for table in READ_TABLES:
        op.execute(OF_A_READ_TABLE.format(table=table))


def downgrade() -> None:
    """Not supported: go forward with a new revision."""
    raise NotImplementedError("restore the backup taken before the upgrade")
