-- The statements of every SQL store. Only what stands in comments /*+ ... */ differs: PostgreSQL
-- gets it, SQLite needs none of it, because one transaction writes at a time there.
-- `owner || ''` and `+ turn` keep SQLite from an index that holds the finished jobs too. It knows
-- no statistics, and would read all jobs of an owner, or of all, to find the few that it needs.
-- `abs` of an age: a time of before the clock was set back lies ahead, and must not count for ever.

-- name: lock
SELECT version FROM schema_version /*+ FOR UPDATE */

-- name: job_of_key
SELECT task_id, number, fingerprint FROM jobs WHERE owner = $1 AND idempotency_key = $2

-- name: number_of
SELECT number FROM jobs WHERE task_id = $1

-- name: unfinished
SELECT count(*) FILTER (WHERE worker IS NULL) AS waiting, CAST(coalesce(sum(bytes), 0) AS BIGINT) AS bytes
FROM jobs WHERE ended_at IS NULL

-- name: unfinished_of
SELECT count(*) FILTER (WHERE worker IS NULL) AS waiting, CAST(coalesce(sum(bytes), 0) AS BIGINT) AS bytes
FROM jobs WHERE ended_at IS NULL AND owner || '' = $1

-- name: finished_bytes
SELECT bytes FROM finished

-- name: count_finished
UPDATE finished SET bytes = bytes + $1

-- name: count_finished_of
INSERT INTO finished_of (owner, bytes) VALUES ($1, $2)
ON CONFLICT (owner) DO UPDATE SET bytes = finished_of.bytes + excluded.bytes

-- name: forget_owner
DELETE FROM finished_of WHERE owner = $1 AND bytes <= 0

-- name: largest_owner
SELECT owner FROM finished_of
ORDER BY bytes + CASE WHEN owner = $1 THEN CAST($2 AS BIGINT) ELSE 0 END DESC LIMIT 1

-- name: insert_job
INSERT INTO jobs (
  task_id, owner, max_running, idempotency_key, fingerprint, task_type, params, max_attempts,
  status, last_seq, bytes, input_bytes, created_at
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'queued', 1, $9, $10, $11)
RETURNING number

-- name: insert_event
INSERT INTO events (task_id, seq, data, preview) VALUES ($1, $2, $3, $4)

-- name: job
SELECT number, task_id, owner, task_type, params, status, last_seq, attempt, losses, max_attempts,
  cancel_asked_at, ended_at
FROM jobs WHERE task_id = $1

-- name: events_after
SELECT seq, data, preview FROM events WHERE task_id = $1 AND seq > $2 ORDER BY seq

-- name: event
SELECT seq, data, preview FROM events WHERE task_id = $1 AND seq = $2

-- name: newest
SELECT j.number, j.task_id, j.task_type, j.created_at, e.data, e.preview
FROM jobs j JOIN events e ON e.task_id = j.task_id AND e.seq = j.last_seq
WHERE j.owner = $3 AND j.number < $1 ORDER BY j.number DESC LIMIT $2

-- name: newest_of
SELECT j.number, j.task_id, j.task_type, j.created_at, e.data, e.preview
FROM jobs j JOIN events e ON e.task_id = j.task_id AND e.seq = j.last_seq
WHERE j.owner = $3 AND j.status = $4 AND j.number < $1 ORDER BY j.number DESC LIMIT $2

-- name: waiting
SELECT j.number, j.task_id, j.task_type, j.owner, j.max_running, e.data, e.preview,
  coalesce((SELECT max(t.turn) FROM jobs t WHERE t.owner = j.owner), 0) AS last_turn
FROM jobs j JOIN events e ON e.task_id = j.task_id AND e.seq = j.last_seq
WHERE j.worker IS NULL AND j.ended_at IS NULL AND j.cancel_asked_at IS NULL ORDER BY j.number

-- name: held
SELECT j.task_id, j.owner, j.worker, coalesce(j.turn, 0) AS turn, e.data, e.preview
FROM jobs j JOIN events e ON e.task_id = j.task_id AND e.seq = j.last_seq
WHERE j.worker IS NOT NULL ORDER BY + j.turn

-- name: workers
SELECT worker, state, store_now() - seen_at AS age FROM workers
WHERE abs(store_now() - seen_at) <= $1 ORDER BY worker, triton_url

-- name: announce
INSERT INTO workers (worker, triton_url, seen_at, state) VALUES ($1, $2, store_now(), $3)
ON CONFLICT (worker, triton_url) DO UPDATE SET seen_at = excluded.seen_at, state = excluded.state

-- name: depart
DELETE FROM workers WHERE worker = $1

-- name: forget_absent
DELETE FROM workers WHERE abs(store_now() - seen_at) > $1

-- name: ask_cancel
UPDATE jobs SET cancel_asked_at = coalesce(cancel_asked_at, store_now())
WHERE task_id = $1 AND ended_at IS NULL

-- name: claim
UPDATE jobs SET worker = $1, attempt = attempt + 1, lease_until = store_now() + $2,
  turn = coalesce((SELECT max(turn) FROM jobs), 0) + 1
WHERE number = (
  SELECT j.number FROM jobs j
  WHERE j.worker IS NULL AND j.ended_at IS NULL AND j.cancel_asked_at IS NULL
    AND $3 LIKE '%,' || j.task_type || ',%'
    AND (j.max_running IS NULL OR j.max_running > (
      SELECT count(*) FROM jobs r WHERE r.worker IS NOT NULL AND r.owner || '' = j.owner
    ))
  ORDER BY coalesce((SELECT max(t.turn) FROM jobs t WHERE t.owner = j.owner), 0), j.number
  LIMIT 1 /*+ FOR UPDATE OF j SKIP LOCKED */
)
RETURNING number, task_id, task_type, owner, max_running, turn, attempt, last_seq

-- name: append
UPDATE jobs SET last_seq = $4, status = $5, bytes = bytes + $6
WHERE task_id = $1 AND worker = $2 AND attempt = $3 AND last_seq = $4 - 1
RETURNING number

-- name: free
UPDATE jobs SET worker = NULL, lease_until = NULL, turn = NULL, losses = losses + $4
WHERE task_id = $1 AND worker = $2 AND attempt = $3
RETURNING number

-- name: free_overdue
UPDATE jobs SET worker = NULL, lease_until = NULL, turn = NULL, losses = losses + 1
WHERE number IN (
  SELECT number FROM jobs WHERE lease_until < $1 OR lease_until > $1 + $2
  /*+ FOR UPDATE SKIP LOCKED */
)
RETURNING task_id

-- name: free_of_former
UPDATE jobs SET worker = NULL, lease_until = NULL, turn = NULL, losses = losses + 1
WHERE number IN (
  SELECT j.number FROM jobs j
  WHERE j.worker IS NOT NULL AND j.worker <> $2
    AND substr(j.worker, 1, length(CAST($1 AS TEXT))) = CAST($1 AS TEXT)
    AND NOT EXISTS (
      SELECT 1 FROM workers w WHERE w.worker = j.worker AND abs(store_now() - w.seen_at) <= $3
    )
  /*+ FOR UPDATE SKIP LOCKED */
)
RETURNING task_id

-- name: touch_late
UPDATE jobs SET lease_until = lease_until WHERE number IN (
  SELECT number FROM jobs WHERE lease_until < store_now() + $1 /*+ FOR UPDATE SKIP LOCKED */
)

-- name: now
SELECT store_now() AS now

-- name: overdue
SELECT number FROM jobs WHERE lease_until < $1 OR lease_until > $1 + $2 LIMIT 1

-- name: of_former
SELECT worker FROM jobs
WHERE worker IS NOT NULL AND worker <> $2
  AND substr(worker, 1, length(CAST($1 AS TEXT))) = CAST($1 AS TEXT)
UNION ALL
SELECT worker FROM workers
WHERE worker <> $2 AND substr(worker, 1, length(CAST($1 AS TEXT))) = CAST($1 AS TEXT)
LIMIT 1

-- name: depart_former
DELETE FROM workers
WHERE worker <> $2 AND substr(worker, 1, length(CAST($1 AS TEXT))) = CAST($1 AS TEXT)
  AND abs(store_now() - seen_at) > $3

-- name: requeue
UPDATE jobs SET last_seq = $2, status = 'queued', bytes = bytes + $3 WHERE task_id = $1

-- name: end_held
UPDATE jobs SET last_seq = $4, status = $5, bytes = bytes - input_bytes + $6, input_bytes = 0,
  ended_at = store_now(), worker = NULL, lease_until = NULL
WHERE task_id = $1 AND worker = $2 AND attempt = $3 AND last_seq = $4 - 1
RETURNING bytes, owner

-- name: end_free
UPDATE jobs SET last_seq = $2, status = $3, bytes = bytes - input_bytes + $4, input_bytes = 0,
  ended_at = store_now()
WHERE task_id = $1 AND worker IS NULL AND ended_at IS NULL
RETURNING bytes, owner

-- name: renew
UPDATE jobs SET lease_until = store_now() + $4
WHERE task_id = $1 AND worker = $2 AND attempt = $3
RETURNING cancel_asked_at

-- name: stale_cancels
SELECT task_id FROM jobs
WHERE worker IS NULL AND ended_at IS NULL AND abs(store_now() - cancel_asked_at) > $1

-- name: expired
SELECT task_id, ended_at FROM jobs WHERE ended_at < store_now() - $1
UNION ALL
SELECT task_id, ended_at FROM jobs WHERE ended_at > store_now() + $1
ORDER BY ended_at LIMIT $2

-- name: first_finished_of
SELECT task_id FROM jobs WHERE owner = $1 AND ended_at IS NOT NULL ORDER BY ended_at LIMIT 1

-- name: delete_job
DELETE FROM jobs WHERE task_id = $1 RETURNING bytes, owner

-- name: put_part
INSERT INTO blobs (task_id, name, part, data, put_at) VALUES ($1, $2, $3, $4, store_now())
ON CONFLICT (task_id, name, part) DO NOTHING

-- name: blob_size
SELECT coalesce(sum(length(data)), 0) AS bytes FROM blobs WHERE task_id = $1 AND name = $2

-- name: piece
SELECT substr(data, $4, $5) AS data FROM blobs WHERE task_id = $1 AND name = $2 AND part = $3

-- name: delete_blobs
DELETE FROM blobs WHERE task_id = $1

-- name: delete_all_but
DELETE FROM blobs WHERE task_id = $1 AND name <> 'original' AND name NOT LIKE $2

-- name: delete_results
DELETE FROM blobs WHERE task_id = $1 AND name LIKE $2

-- name: old_blobs
SELECT b.put_at, b.task_id AS id, b.name,
  NOT EXISTS (SELECT 1 FROM jobs j WHERE j.task_id = b.task_id) AS lost
FROM blobs b
WHERE b.part = 0 AND b.put_at >= $1 AND (b.put_at, b.task_id, b.name) > ($1, $2, $3)
  AND (b.put_at < $4 OR b.put_at > $5)
ORDER BY b.put_at, b.task_id, b.name LIMIT $6

-- name: picture
SELECT text_digest, blob, bytes, abs(store_now() - used_at) > $3 AS due
FROM pictures WHERE owner = $1 AND image_id = $2 AND abs(store_now() - used_at) <= $4

-- name: use_picture
UPDATE pictures SET used_at = store_now() WHERE owner = $1 AND image_id = $2 RETURNING blob

-- name: add_picture
INSERT INTO pictures (owner, image_id, text_digest, blob, bytes, used_at)
VALUES ($1, $2, $3, $4, $5, store_now())

-- name: delete_picture
DELETE FROM pictures WHERE owner = $1 AND image_id = $2 RETURNING blob, bytes

-- name: expired_pictures
SELECT owner, image_id, used_at FROM pictures WHERE used_at < store_now() - $1
UNION ALL
SELECT owner, image_id, used_at FROM pictures WHERE used_at > store_now() + $1
ORDER BY used_at LIMIT $2

-- name: picture_bytes
SELECT CAST(coalesce(sum(bytes), 0) AS BIGINT) AS bytes FROM pictures_of

-- name: count_picture
INSERT INTO pictures_of (owner, bytes) VALUES ($1, $2)
ON CONFLICT (owner) DO UPDATE SET bytes = pictures_of.bytes + excluded.bytes

-- name: forget_owner_of_pictures
DELETE FROM pictures_of WHERE owner = $1 AND bytes <= 0

-- name: owner_of_most_pictures
SELECT owner FROM pictures_of
ORDER BY bytes + CASE WHEN owner = $1 THEN CAST($2 AS BIGINT) ELSE 0 END DESC LIMIT 1

-- name: oldest_picture_of
SELECT image_id FROM pictures WHERE owner = $1 ORDER BY used_at LIMIT 1

-- name: put_picture_part
INSERT INTO picture_parts (blob, part, data, put_at) VALUES ($1, $2, $3, store_now())

-- name: picture_part
SELECT data FROM picture_parts WHERE blob = $1 AND part = $2

-- name: delete_picture_parts
DELETE FROM picture_parts WHERE blob = $1

-- name: old_picture_parts
SELECT b.put_at, b.blob AS id, '' AS name,
  NOT EXISTS (SELECT 1 FROM pictures p WHERE p.blob = b.blob) AS lost
FROM picture_parts b
WHERE b.part = 0 AND b.put_at >= $1 AND (b.put_at, b.blob, '') > ($1, $2, $3)
  AND (b.put_at < $4 OR b.put_at > $5)
ORDER BY b.put_at, b.blob LIMIT $6
