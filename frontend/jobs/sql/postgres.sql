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

CREATE TABLE finished (bytes BIGINT NOT NULL);
INSERT INTO finished (bytes) VALUES (0);
CREATE TABLE finished_of (owner TEXT NOT NULL PRIMARY KEY, bytes BIGINT NOT NULL);
