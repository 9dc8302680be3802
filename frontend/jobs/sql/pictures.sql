-- Version 2, in either database: pictures of mask requests. SQLite takes PostgreSQL's types too.

CREATE TABLE pictures (
  owner TEXT NOT NULL,
  -- SHA-256 of the file, hexadecimal.
  image_id TEXT NOT NULL,
  -- SHA-256 of the base64 that the file came as.
  text_digest BYTEA NOT NULL,
  -- The name of its parts.
  blob TEXT NOT NULL UNIQUE,
  bytes BIGINT NOT NULL,
  used_at DOUBLE PRECISION NOT NULL,
  PRIMARY KEY (owner, image_id)
);
CREATE INDEX pictures_used ON pictures (used_at);
CREATE INDEX pictures_used_of ON pictures (owner, used_at);

-- Written before the row that makes them count, so without a reference to it.
CREATE TABLE picture_parts (
  blob TEXT NOT NULL,
  part INTEGER NOT NULL,
  data BYTEA NOT NULL,
  put_at DOUBLE PRECISION NOT NULL,
  PRIMARY KEY (blob, part)
) /*+ WITH (
  autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_vacuum_scale_factor = 0.05
) */;
/*+ ALTER TABLE picture_parts ALTER COLUMN data SET STORAGE EXTERNAL */;
CREATE INDEX picture_parts_put ON picture_parts (put_at) WHERE part = 0;

-- Bytes of each owner's pictures: a sum over them would grow with their number.
CREATE TABLE pictures_of (owner TEXT NOT NULL PRIMARY KEY, bytes BIGINT NOT NULL);
