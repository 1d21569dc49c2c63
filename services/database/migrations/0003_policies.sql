-- +goose Up
-- What a project may hold, and what must stay in it.

-- Quotas ------------------------------------------------------------------
-- What counts: every blob and every manifest of a project, once. Whoever adds
-- or takes away a row here changes the usage in the same transaction. There are
-- no foreign keys: a project's row would be locked by every push to it.
CREATE TABLE project_blobs (
  project_id    bigint NOT NULL,
  digest        bytea NOT NULL,
  manifest      boolean NOT NULL,                 -- a manifest's payload; else a blob
  size          bigint NOT NULL,
  PRIMARY KEY (project_id, digest, manifest)
);

-- A project's usage is the sum of its shards and of its changes. Changes are
-- only ever appended, so that counting waits for nobody; settle_usage adds them
-- to the shards. In a project with a limit, what is added goes to a shard that
-- has room for it: the shards' room together is not more than the limit, so
-- pushes beside one another need not know of each other.
CREATE TABLE usage_changes (
  project_id    bigint NOT NULL,
  bytes         bigint NOT NULL
);
CREATE INDEX usage_changes_project ON usage_changes (project_id);
CREATE TABLE usage_shards (
  project_id    bigint NOT NULL,
  shard         smallint NOT NULL,
  used          bigint NOT NULL DEFAULT 0,        -- bytes; only the sum of a project's shards means anything
  room          bigint NOT NULL DEFAULT 0,        -- used may grow up to this without asking the other shards
  PRIMARY KEY (project_id, shard)
) WITH (fillfactor = 50);

-- settle_usage gathers a project's usage, adds to it, and gives its shards room
-- anew. It fails with BQ001 if the limit would be exceeded. It holds all of the
-- project's shards until the transaction ends, so it must be the last thing that
-- a transaction locks. Room ends at 85 % of the limit first; so whoever takes the
-- usage past that comes here, and gets the usage as the answer, once.
-- +goose StatementBegin
CREATE FUNCTION settle_usage(project bigint, added bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  shards integer := CASE WHEN (SELECT storage_limit FROM projects WHERE id = project) >= 0 THEN 8 ELSE 1 END;
  most   bigint;
  mark   bigint;
  before bigint;
  free   bigint;
BEGIN
  INSERT INTO usage_shards (project_id, shard) SELECT project, n FROM generate_series(0, shards - 1) AS n ON CONFLICT DO NOTHING;
  PERFORM FROM usage_shards WHERE project_id = project ORDER BY shard FOR UPDATE;
  -- Statements from here on see what those have committed who held the shards.
  most := (SELECT storage_limit FROM projects WHERE id = project);
  mark := most / 100 * 85 + most % 100 * 85 / 100;
  WITH gone AS (DELETE FROM usage_changes WHERE project_id = project RETURNING bytes)
    SELECT coalesce(sum(bytes), 0) INTO before FROM gone;
  before := before + (SELECT sum(used) FROM usage_shards WHERE project_id = project);
  IF most >= 0 AND added > 0 AND before + added > most THEN
    BEGIN
      PERFORM set_config('log_min_messages', 'fatal', true); -- a refusal is no news for the server's log
    EXCEPTION WHEN insufficient_privilege THEN
      NULL; -- a role that is no superuser's makes lines there
    END;
    RAISE EXCEPTION 'quota exceeded' USING ERRCODE = 'BQ001',
      DETAIL = json_build_object('project', project, 'used', before, 'limit', most, 'added', added);
  END IF;
  free := greatest(CASE WHEN before + added <= mark THEN mark ELSE most END - before - added, 0);
  UPDATE usage_shards SET
      used = CASE shard WHEN 0 THEN before + added ELSE 0 END,
      room = CASE WHEN shard >= shards OR most < 0 THEN 0 WHEN shard = 0 THEN before + added + free / shards + free % shards ELSE free / shards END
    WHERE project_id = project;
  RETURN CASE WHEN before <= mark AND before + added > mark THEN before + added END;
END $$;

-- take_usage adds to the usage of a project with a limit. It waits for nobody
-- as long as some shard has room that nobody holds.
CREATE FUNCTION take_usage(project bigint, added bigint) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
  UPDATE usage_shards s SET used = s.used + added
    FROM (SELECT shard FROM usage_shards WHERE project_id = project AND used + added <= room LIMIT 1 FOR UPDATE SKIP LOCKED) AS free
    WHERE s.project_id = project AND s.shard = free.shard;
  IF FOUND THEN
    RETURN NULL;
  END IF;
  RETURN settle_usage(project, added);
END $$;
-- +goose StatementEnd

INSERT INTO project_blobs (project_id, digest, manifest, size)
  SELECT DISTINCT r.project_id, mb.digest, false, b.size FROM manifests m JOIN repositories r ON r.id = m.repo_id
  JOIN manifest_blobs mb ON mb.manifest_id = m.id JOIN blobs b ON b.digest = mb.digest WHERE m.deleted_at IS NULL
  UNION ALL
  SELECT DISTINCT r.project_id, m.digest, true, m.size FROM manifests m JOIN repositories r ON r.id = m.repo_id WHERE m.deleted_at IS NULL;
INSERT INTO usage_changes (project_id, bytes) SELECT project_id, sum(size) FROM project_blobs GROUP BY project_id;

-- A project that nobody may write to for now.
ALTER TABLE projects ADD read_only boolean NOT NULL DEFAULT false;

-- A robot's secret before the last one, as long as both are to work.
ALTER TABLE robots ADD old_secret_hash bytea, ADD old_secret_until timestamptz;

-- Immutable tags ----------------------------------------------------------
CREATE TABLE immutable_rules (
  id            bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
  project_id    bigint NOT NULL REFERENCES projects(id) ON DELETE CASCADE,
  disabled      boolean NOT NULL DEFAULT false,
  rule          jsonb NOT NULL,                   -- {tags: {matches, pattern}, repositories: {matches, pattern}}
  created_at    timestamptz NOT NULL DEFAULT now(),
  UNIQUE (project_id, rule)
);

-- Labels ------------------------------------------------------------------
CREATE TABLE labels (
  id            bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
  project_id    bigint REFERENCES projects(id) ON DELETE CASCADE, -- null: for all projects
  name          text COLLATE "C" NOT NULL,
  description   text NOT NULL DEFAULT '',
  color         text NOT NULL DEFAULT '',
  created_at    timestamptz NOT NULL DEFAULT now(),
  updated_at    timestamptz NOT NULL DEFAULT now(),
  UNIQUE NULLS NOT DISTINCT (project_id, name)
);
CREATE TABLE artifact_labels (
  manifest_id   bigint NOT NULL REFERENCES manifests(id) ON DELETE CASCADE,
  label_id      bigint NOT NULL REFERENCES labels(id) ON DELETE CASCADE,
  PRIMARY KEY (manifest_id, label_id)
);
CREATE INDEX artifact_labels_label ON artifact_labels (label_id, manifest_id);

-- Retention ---------------------------------------------------------------
CREATE TABLE retention_policies (
  id            bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
  project_id    bigint NOT NULL UNIQUE REFERENCES projects(id) ON DELETE CASCADE,
  policy        jsonb NOT NULL,                   -- as the API has it, without id and scope
  created_at    timestamptz NOT NULL DEFAULT now(),
  updated_at    timestamptz NOT NULL DEFAULT now()
);

-- Vulnerabilities that do not count anywhere: one row, once it is set.
CREATE TABLE system_allowlist (
  one           boolean PRIMARY KEY DEFAULT true CHECK (one),
  allowlist     jsonb NOT NULL,                   -- {items: [{cve_id}], expires_at}
  created_at    timestamptz NOT NULL DEFAULT now(),
  updated_at    timestamptz NOT NULL DEFAULT now()
);

-- +goose Down
SELECT 1; -- Berth goes forward only; a rollback restores the dump that the update took.
