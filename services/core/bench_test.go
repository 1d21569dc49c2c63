package core_test

import "testing"

// How long the lists of a repository with 100,000 tagged artifacts take, each of
// which has a label.
func BenchmarkLargeRepository(bm *testing.B) {
	b := setup(bm)
	b.push("library/app", "v1", "x")
	b.exec(`INSERT INTO manifests (repo_id, digest, media_type, config_type, size, total_size, payload)
		SELECT m.repo_id, '\x01'::bytea || sha256(n::text::bytea), m.media_type, m.config_type, 1, 1, '' FROM manifests m, generate_series(1, 100000) AS n`)
	b.exec(`INSERT INTO tags (repo_id, name, manifest_id) SELECT repo_id, 't' || id, id FROM manifests ON CONFLICT DO NOTHING`)
	b.exec(`INSERT INTO labels (name) SELECT 'l' || n FROM generate_series(1, 10) AS n`)
	b.exec(`INSERT INTO artifact_labels (manifest_id, label_id) SELECT m.id, l.id FROM manifests m JOIN labels l ON l.id = 1 + m.id % 10`)
	b.exec(`ANALYZE`)
	for name, path := range map[string]string{"artifacts": "/artifacts?page_size=100&with_label=true&with_immutable_status=true",
		"labelled": "/artifacts?page_size=100&with_label=true&q=labels=3", "repository": ""} {
		bm.Run(name, func(bm *testing.B) {
			for bm.Loop() {
				b.do("GET", "/api/v2.0/projects/library/repositories/app"+path, root, "")
			}
		})
	}
}
