CREATE TABLE encounters (
    id uuid PRIMARY KEY,
    unit_id text NOT NULL,
    patient_id uuid NOT NULL,
    department text NOT NULL,
    status text NOT NULL DEFAULT 'arrived',
    reason text,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX encounters_by_patient ON encounters (patient_id);
CREATE TABLE queue_entries (
    id uuid PRIMARY KEY,
    encounter_id uuid NOT NULL REFERENCES encounters,
    unit_id text NOT NULL,
    department text NOT NULL,
    priority text NOT NULL,
    status text NOT NULL DEFAULT 'waiting',
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX queue_entries_waiting ON queue_entries (unit_id, department, status, created_at);
CREATE TABLE notifications (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    encounter_id uuid NOT NULL REFERENCES encounters,
    unit_id text NOT NULL,
    kind text NOT NULL,
    read_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);
