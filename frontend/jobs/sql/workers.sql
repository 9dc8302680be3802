-- In either database: who runs jobs. SQLite takes PostgreSQL's types too.

CREATE TABLE workers (
  worker TEXT NOT NULL,
  triton_url TEXT NOT NULL,
  seen_at DOUBLE PRECISION NOT NULL,
  -- JSON: what the worker last said of this Triton.
  state TEXT NOT NULL,
  PRIMARY KEY (worker, triton_url)
);
