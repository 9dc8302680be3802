-- The tables, as PostgreSQL writes them; sqlite.sql says what the columns mean.

-- Seconds since 1970 by the database's clock, the same in all of one statement.
CREATE FUNCTION store_now() RETURNS DOUBLE PRECISION LANGUAGE sql STABLE
AS 'SELECT CAST(extract(epoch FROM statement_timestamp()) AS DOUBLE PRECISION)';

CREATE TABLE schema_version (version INTEGER NOT NULL);

CREATE TABLE jobs (
  number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  task_id TEXT NOT NULL UNIQUE,
  owner TEXT NOT NULL,
  max_running BIGINT,
  idempotency_key TEXT,
  fingerprint BYTEA,
  task_type TEXT NOT NULL,
  params TEXT NOT NULL,
  max_attempts INTEGER NOT NULL,
  status TEXT NOT NULL,
  last_seq BIGINT NOT NULL,
  bytes BIGINT NOT NULL,
  input_bytes BIGINT NOT NULL,
  attempt BIGINT NOT NULL DEFAULT 0,
  losses INTEGER NOT NULL DEFAULT 0,
  worker TEXT,
  turn BIGINT,
  lease_until DOUBLE PRECISION,
  cancel_asked_at DOUBLE PRECISION,
  created_at DOUBLE PRECISION NOT NULL,
  ended_at DOUBLE PRECISION
);
CREATE UNIQUE INDEX jobs_key ON jobs (owner, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX jobs_unfinished ON jobs (number) WHERE ended_at IS NULL;
CREATE INDEX jobs_held ON jobs (worker) WHERE worker IS NOT NULL;
CREATE INDEX jobs_leases ON jobs (lease_until) WHERE lease_until IS NOT NULL;
CREATE INDEX jobs_ended ON jobs (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX jobs_ended_of ON jobs (owner, ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX jobs_owner ON jobs (owner, number);
CREATE INDEX jobs_status ON jobs (owner, status, number);
CREATE INDEX jobs_turn ON jobs (turn);
CREATE INDEX jobs_turn_of ON jobs (owner, turn);

CREATE TABLE events (
  task_id TEXT NOT NULL REFERENCES jobs (task_id) ON DELETE CASCADE,
  seq BIGINT NOT NULL,
  data TEXT NOT NULL,
  preview BYTEA NOT NULL,
  PRIMARY KEY (task_id, seq)
);

CREATE TABLE blobs (
  task_id TEXT NOT NULL,
  name TEXT NOT NULL,
  part INTEGER NOT NULL,
  data BYTEA NOT NULL,
  put_at DOUBLE PRECISION NOT NULL,
  PRIMARY KEY (task_id, name, part)
);
-- Pictures do not compress, and pieces of them are read.
ALTER TABLE blobs ALTER COLUMN data SET STORAGE EXTERNAL;
-- The space of finished jobs is needed again soon.
ALTER TABLE blobs SET (
  autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_vacuum_scale_factor = 0.05
);
CREATE INDEX blobs_put ON blobs (put_at) WHERE part = 0;

CREATE TABLE finished (bytes BIGINT NOT NULL);
INSERT INTO finished (bytes) VALUES (0);
CREATE TABLE finished_of (owner TEXT NOT NULL PRIMARY KEY, bytes BIGINT NOT NULL);
