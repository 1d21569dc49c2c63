package core_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/services/account"
	"berth/services/directory/slapdtest"
	"berth/services/event"
)

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

// What a request with a name and a password costs: the first, whose password has
// to be checked, and those after it. Processor time is this process's; the
// directory's and PostgreSQL's come to it.
func BenchmarkBasicAuth(bm *testing.B) {
	for name, ldap := range map[string]bool{"local": false, "ldap": true} {
		bm.Run(name, func(bm *testing.B) {
			b := setup(bm)
			user := root
			if ldap {
				s := slapdtest.Start(bm)
				b.configure(map[string]any{"auth_mode": "ldap_auth", "ldap_url": s.URL, "ldap_base_dn": slapdtest.People, "ldap_uid": "uid",
					"ldap_search_dn": slapdtest.SearchDN, "ldap_search_password": slapdtest.Password, "ldap_group_base_dn": slapdtest.Groups})
				user = "anna:" + slapdtest.Password
			}
			bm.Run("first", func(bm *testing.B) {
				outbox, err := event.NewOutbox(b.pool)
				if err != nil {
					bm.Fatal(err)
				}
				name, password, _ := strings.Cut(user, ":")
				defer processorTime(bm)()
				for bm.Loop() { // each time a process that remembers nothing
					accounts := account.New(b.pool, b.options.Key, outbox)
					accounts.Consult(b.options.Configuration, b.options.Directory)
					if _, err := accounts.Authenticate(bm.Context(), name, password, ""); err != nil {
						bm.Fatal(err)
					}
				}
			})
			bm.Run("again", func(bm *testing.B) {
				defer processorTime(bm)()
				for bm.Loop() {
					b.want(b.do("GET", "/api/v2.0/users/current", user, ""), 200)
				}
			})
		})
	}
}

// processorTime reports what a benchmark takes of it.
func processorTime(bm *testing.B) func() {
	used := func() (t time.Duration) {
		var u syscall.Rusage
		if syscall.Getrusage(syscall.RUSAGE_SELF, &u) == nil {
			t = time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
		return t
	}
	before := used()
	return func() {
		bm.ReportMetric(float64((used()-before).Microseconds())/float64(bm.N)/1000, "cpu-ms/op")
	}
}
