"""The read side: the tables questions are answered from, what the gateway may see of them, and facts left out."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SCHEMA = """
CREATE TABLE read_units (
    unit_id text PRIMARY KEY,
    partition int NOT NULL,
    name text NOT NULL,
    name_key text COLLATE "C" NOT NULL,
    kind text NOT NULL,
    source_id text,
    address jsonb,
    settings jsonb NOT NULL,
    zone text NOT NULL,
    ageing_minutes int NOT NULL,
    status text NOT NULL,
    status_reason text,
    version int NOT NULL,
    registered_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE INDEX read_units_by_name ON read_units (name_key, unit_id);

CREATE TABLE read_departments (
    unit_id text NOT NULL,
    department text NOT NULL,
    partition int NOT NULL,
    display text NOT NULL,
    PRIMARY KEY (unit_id, department)
);

CREATE TABLE read_patients (
    patient_id uuid NOT NULL,
    unit_id text NOT NULL,
    partition int NOT NULL,
    medical_record_number text,
    first_name text,
    last_name text,
    last_first text COLLATE "C" NOT NULL,
    first_last text COLLATE "C" NOT NULL,
    date_of_birth date,
    gender text NOT NULL,
    contact jsonb,
    room_number text,
    source_id text,
    status text NOT NULL,
    deceased_at timestamptz,
    erased boolean NOT NULL,
    version int NOT NULL,
    registered_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (patient_id, unit_id)
);
CREATE INDEX read_patients_by_last_name ON read_patients (unit_id, last_first, patient_id);
CREATE INDEX read_patients_by_first_name ON read_patients (unit_id, first_last, patient_id);
CREATE INDEX read_patients_by_number ON read_patients (unit_id, medical_record_number);
CREATE INDEX read_patients_by_birth ON read_patients (unit_id, date_of_birth);
COMMENT ON COLUMN read_patients.last_first IS
    'Folded name, compared byte by byte: beneath row-level security only such comparisons may use an index.';

CREATE TABLE read_encounters (
    encounter_id uuid NOT NULL,
    unit_id text NOT NULL,
    partition int NOT NULL,
    patient_id uuid NOT NULL,
    queue_entry_id uuid NOT NULL,
    department text NOT NULL,
    priority text NOT NULL,
    encounter_class text NOT NULL,
    status text NOT NULL,
    open boolean NOT NULL,
    practitioner_id text,
    reason text,
    acuity int,
    triage_note text,
    room text,
    closing_note text,
    erased boolean NOT NULL,
    version int NOT NULL,
    arrived_at timestamptz NOT NULL,
    started_at timestamptz,
    ended_at timestamptz,
    PRIMARY KEY (encounter_id, unit_id)
) WITH (fillfactor = 80);
CREATE INDEX read_encounters_by_patient ON read_encounters (patient_id, encounter_id);
CREATE INDEX read_encounters_open ON read_encounters (unit_id, encounter_id) WHERE open;

CREATE TABLE read_waiting_room (
    unit_id text NOT NULL,
    department text NOT NULL,
    service_day date NOT NULL,
    entry_id uuid NOT NULL,
    partition int NOT NULL,
    patient_id uuid NOT NULL,
    encounter_id uuid NOT NULL,
    ticket int NOT NULL,
    priority text NOT NULL,
    rank smallint NOT NULL,
    status text NOT NULL,
    counter text,
    calls int NOT NULL,
    arrived_at timestamptz NOT NULL,
    called_at timestamptz,
    started_at timestamptz,
    ended_at timestamptz,
    transferred_from uuid,
    transferred_to uuid,
    PRIMARY KEY (unit_id, department, service_day, entry_id)
) WITH (fillfactor = 70);

CREATE TABLE read_notifications (
    unit_id text NOT NULL,
    department text NOT NULL,
    position bigint NOT NULL,
    partition int NOT NULL,
    encounter_id uuid NOT NULL,
    patient_id uuid NOT NULL,
    queue_entry_id uuid NOT NULL,
    priority text NOT NULL,
    practitioner_id text,
    notified_at timestamptz NOT NULL,
    PRIMARY KEY (unit_id, department, position)
);

CREATE TABLE read_unit_commands (
    unit_command_id uuid NOT NULL,
    unit_id text NOT NULL,
    partition int NOT NULL,
    type text NOT NULL,
    patient_id uuid,
    deadline timestamptz NOT NULL,
    on_reconnect text NOT NULL,
    status text NOT NULL,
    code text,
    result jsonb,
    late_report text,
    erased boolean NOT NULL,
    version int NOT NULL,
    queued_position bigint NOT NULL,
    queued_at timestamptz NOT NULL,
    settled_at timestamptz,
    PRIMARY KEY (unit_command_id, unit_id)
);
CREATE INDEX read_unit_commands_of_unit ON read_unit_commands (unit_id, queued_position);

CREATE INDEX command_receipts_refused ON command_receipts (recorded_at, command_id) WHERE status = 'refused';
CREATE INDEX command_receipts_refused_by_unit ON command_receipts (unit_id, recorded_at, command_id)
    WHERE status = 'refused';

CREATE TABLE projection_faults (
    read_model text NOT NULL,
    partition int NOT NULL,
    position bigint NOT NULL,
    event_type text NOT NULL,
    error_type text NOT NULL,
    found_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (read_model, partition, position)
);
COMMENT ON TABLE projection_faults IS
    'Events a read model could not apply and left out: which and why, never what was in them. A rebuild tries again.';
"""

READ_TABLES = (
    "read_units",
    "read_departments",
    "read_patients",
    "read_encounters",
    "read_waiting_room",
    "read_notifications",
    "read_unit_commands",
)

GRANTS = """
GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO carespine_projections;
GRANT SELECT ON {table} TO carespine_gateway;
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
CREATE POLICY all_rows ON {table} TO carespine_projections USING (true) WITH CHECK (true);
CREATE POLICY own_unit ON {table} FOR SELECT TO carespine_gateway
    USING (current_setting('carespine.unit', true) IN (unit_id, '*'));
"""

MORE_GRANTS = """
GRANT SELECT ON read_units TO carespine_bridge;
CREATE POLICY every_unit ON read_units FOR SELECT TO carespine_bridge USING (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON projection_faults TO carespine_projections;
GRANT SELECT ON projection_faults TO carespine_gateway;
"""


def upgrade() -> None:
    """Create the read tables, empty: the projections fill them from the log."""
    op.execute(SCHEMA)
    for table in READ_TABLES:
        op.execute(GRANTS.format(table=table))
    op.execute(MORE_GRANTS)


def downgrade() -> None:
    """Not supported: go forward with a new revision."""
    raise NotImplementedError("restore the backup taken before the upgrade")
