package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"berth/tests/cmd/bench/load"
)

// call sends JSON to the REST API as the administrator.
func (b *Berth) call(ctx context.Context, method, path string, body any, want int) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	_, err = b.client.Do(ctx, load.Request{Method: method, Target: "/api/v2.0" + path, Body: bytes.NewReader(data), Size: int64(len(data)), Type: "application/json", Want: want})
	return err
}

// Artifacts gives a repository this many images, each with a tag and every tenth
// with a label, as rows: pushing them would take minutes.
func (b *Berth) Artifacts(ctx context.Context, repo string, count int) error {
	if err := b.client.PushManifest(ctx, repo, "first", load.IndexType, note, ""); err != nil {
		return err
	}
	return b.rows(ctx, []string{
		fmt.Sprintf(`INSERT INTO manifests (repo_id, digest, media_type, size, total_size, payload, pushed_at)
			SELECT r.id, '\x01'::bytea || sha256(n::text::bytea), m.media_type, m.size, m.total_size, m.payload, now() - n * interval '1 second'
			FROM repositories r JOIN manifests m ON m.repo_id = r.id, generate_series(1, %d) AS n WHERE r.name = $1`, count),
		`INSERT INTO tags (repo_id, name, manifest_id) SELECT r.id, 't' || m.id, m.id FROM repositories r JOIN manifests m ON m.repo_id = r.id WHERE r.name = $1`,
		`INSERT INTO labels (name) SELECT 'label' || n FROM generate_series(1, 10) AS n WHERE $1 <> ''`,
		`INSERT INTO artifact_labels (manifest_id, label_id) SELECT m.id, l.id FROM repositories r JOIN manifests m ON m.repo_id = r.id, labels l
			WHERE r.name = $1 AND m.id % 10 = 0`,
		`ANALYZE manifests`, `ANALYZE tags`, `ANALYZE artifact_labels`,
	}, repo)
}

// Trail gives the audit trail this many entries, spread over a month.
func (b *Berth) Trail(ctx context.Context, count int) error {
	return b.rows(ctx, []string{
		fmt.Sprintf(`INSERT INTO audit_events (op_time, event_id, operation, resource_type, resource, username, project_id)
			SELECT now() - n * (interval '28 days' / %d), gen_random_uuid(), (ARRAY['pull', 'create', 'delete', 'update'])[1 + n %% 4],
				'artifact', 'library/app:' || n, 'user' || n %% 100, 1 FROM generate_series(1, %d) AS n WHERE $1 <> ''`, count, count),
		`ANALYZE audit_events`,
	}, "fill")
}

// rows runs statements that may take minutes; those with $1 get arg.
func (b *Berth) rows(ctx context.Context, statements []string, arg string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	defer cancel()
	if _, err := b.database.Exec(ctx, `SET statement_timeout = 0`); err != nil {
		return err
	}
	for _, sql := range statements {
		var args []any
		if len(sql) > 7 && sql[:7] != "ANALYZE" {
			args = append(args, arg)
		}
		if _, err := b.database.Exec(ctx, sql, args...); err != nil {
			return fmt.Errorf("cannot fill Berth's database: %w", err)
		}
	}
	return nil
}

// Webhook has a project's pushes told to an address.
func (b *Berth) Webhook(ctx context.Context, project, address string) error {
	return b.call(ctx, "POST", "/projects/"+project+"/webhook/policies", map[string]any{
		"name": "bench", "enabled": true, "event_types": []string{"PUSH_ARTIFACT"},
		"targets": []map[string]any{{"type": "http", "address": address}},
	}, 201)
}
