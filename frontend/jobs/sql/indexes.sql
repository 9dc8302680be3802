-- The indexes, in either database.

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
CREATE INDEX blobs_put ON blobs (put_at) WHERE part = 0;
