-- The tables, as SQLite writes them; `store_now()` is the driver's: seconds since 1970.

CREATE TABLE schema_version (version INTEGER NOT NULL);

CREATE TABLE jobs (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  task_id TEXT NOT NULL UNIQUE,
  owner TEXT NOT NULL,
  -- Jobs that the owner may have running; NULL: no bound.
  max_running INTEGER,
  idempotency_key TEXT,
  fingerprint BLOB,
  task_type TEXT NOT NULL,
  params TEXT NOT NULL,
  max_attempts INTEGER NOT NULL,
  -- Of the newest entry.
  status TEXT NOT NULL,
  last_seq INTEGER NOT NULL,
  -- Held by all of it, and by the inputs among it.
  bytes INTEGER NOT NULL,
  input_bytes INTEGER NOT NULL,
  -- Claims so far, and those of them that were lost.
  attempt INTEGER NOT NULL DEFAULT 0,
  losses INTEGER NOT NULL DEFAULT 0,
  -- Who holds the job; NULL: it waits, or has ended.
  worker TEXT,
  -- Of all claims, the number of the newest; NULL: it came to nothing, or there was none.
  turn INTEGER,
  lease_until REAL,
  cancel_asked_at REAL,
  created_at REAL NOT NULL,
  ended_at REAL
);

CREATE TABLE events (
  task_id TEXT NOT NULL REFERENCES jobs (task_id) ON DELETE CASCADE,
  seq INTEGER NOT NULL,
  data TEXT NOT NULL,
  preview BLOB NOT NULL,
  PRIMARY KEY (task_id, seq)
);

-- Written before the row that makes them count, so without a reference to it.
CREATE TABLE blobs (
  task_id TEXT NOT NULL,
  name TEXT NOT NULL,
  part INTEGER NOT NULL,
  data BLOB NOT NULL,
  put_at REAL NOT NULL,
  PRIMARY KEY (task_id, name, part)
);

-- Bytes of all jobs that have ended: a sum over them would grow with their number.
CREATE TABLE finished (bytes INTEGER NOT NULL);
INSERT INTO finished (bytes) VALUES (0);
CREATE TABLE finished_of (owner TEXT NOT NULL PRIMARY KEY, bytes INTEGER NOT NULL);
