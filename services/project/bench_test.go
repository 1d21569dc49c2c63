package project_test

import (
	"fmt"
	"testing"

	"berth/services/access"
	"berth/services/dbtest"
	"berth/services/event"
	"berth/services/project"
	"berth/services/query"
)

// What a user's groups add to the query that every token and every request with a
// password needs, and to a list; in a project with many members.
func BenchmarkGroups(bm *testing.B) {
	pool := dbtest.New(bm)
	outbox, err := event.NewOutbox(pool)
	if err != nil {
		bm.Fatal(err)
	}
	for _, sql := range []string{
		`INSERT INTO users (username) SELECT 'u' || n FROM generate_series(1, 2000) AS n`,
		`INSERT INTO user_groups (name, type) SELECT 'g' || n, 3 FROM generate_series(1, 200) AS n`,
		`INSERT INTO projects (name) SELECT 'p' || n FROM generate_series(1, 500) AS n`,
		`INSERT INTO project_members (project_id, user_id, role) SELECT 1, id, 3 FROM users`,
		`INSERT INTO project_members (project_id, group_id, role) SELECT p.id, g.id, 2 FROM projects p, user_groups g WHERE p.id <= 20`,
		`ANALYZE`,
	} {
		if _, err := pool.Exec(bm.Context(), sql); err != nil {
			bm.Fatal(err)
		}
	}
	s := project.New(pool, outbox)
	for _, n := range []int{0, 10, 200} {
		p := access.Principal{Kind: access.User, ID: 1000, Name: "u1000"}
		for id := range int64(n) {
			p.Groups = append(p.Groups, id+1)
		}
		bm.Run(fmt.Sprintf("target/%d", n), func(bm *testing.B) {
			for bm.Loop() {
				if _, err := s.Target(bm.Context(), p, "p1"); err != nil {
					bm.Fatal(err)
				}
			}
		})
		bm.Run(fmt.Sprintf("list/%d", n), func(bm *testing.B) {
			for bm.Loop() {
				if _, err := s.List(bm.Context(), p, query.Query{Page: 1, Size: 10}); err != nil {
					bm.Fatal(err)
				}
			}
		})
	}
}
