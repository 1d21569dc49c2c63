package session_test

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"berth/appliance/secret"
	"berth/services/access"
	"berth/services/dbtest"
	"berth/services/event"
	"berth/services/session"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

type bundle struct {
	*session.Store
	t    *testing.T
	pool *pgxpool.Pool
	anna access.Principal
}

func setup(t *testing.T) bundle {
	t.Helper()
	t.Parallel()
	pool := dbtest.New(t)
	outbox, err := event.NewOutbox(pool)
	if err != nil {
		t.Fatal(err)
	}
	b := bundle{session.New(pool, secret.NewKey(make([]byte, 32)), outbox), t, pool, access.Principal{Kind: access.User, Name: "anna"}}
	if err := pool.QueryRow(t.Context(), `INSERT INTO users (username) VALUES ('anna') RETURNING id`).Scan(&b.anna.ID); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b bundle) exec(sql string, args ...any) {
	b.t.Helper()
	if _, err := b.pool.Exec(b.t.Context(), sql, args...); err != nil {
		b.t.Fatal(err)
	}
}

func (b bundle) begin() string {
	b.t.Helper()
	id, err := b.Begin(b.t.Context(), b.anna, time.Hour, "")
	if err != nil {
		b.t.Fatal(err)
	}
	return id.Reveal()
}

func (b bundle) alive(id string) bool {
	b.t.Helper()
	_, ok, err := b.Find(b.t.Context(), id, time.Hour)
	if err != nil {
		b.t.Fatal(err)
	}
	return ok
}

func TestLife(t *testing.T) {
	b, ctx := setup(t), t.Context()
	id := b.begin()
	b.exec(`INSERT INTO user_groups (id, name, type) VALUES (5, 'ops', 3)`)
	b.exec(`INSERT INTO user_group_members VALUES ($1, 5)`, b.anna.ID)
	b.exec(`UPDATE users SET admin_by_group = true`)
	got, ok, err := b.Find(ctx, id, time.Hour)
	if p := got.Principal; err != nil || !ok || p.ID != b.anna.ID || p.Name != "anna" || !p.Sysadmin || len(p.Groups) != 1 || got.OIDC {
		t.Errorf("%+v, %v, %v", got, ok, err)
	}
	for _, other := range []string{"", "x", id + "A", id[:len(id)-1] + "_", strings.Repeat("A", 43)} {
		if other != id && b.alive(other) {
			t.Errorf("%q is a session", other)
		}
	}
	if _, err := b.End(ctx, id); err != nil || b.alive(id) {
		t.Errorf("after its end: %v", err)
	}
	if token, err := b.End(ctx, id); token != "" || err != nil {
		t.Errorf("a second end: %v", err)
	}
	var events string
	if err := b.pool.QueryRow(ctx, `SELECT string_agg(args->>'operation', ' ' ORDER BY id) FROM river_job`).Scan(&events); err != nil || events != "login logout" {
		t.Errorf("events %s, %v", events, err)
	}
}

// The id is nowhere in the table.
func TestIDIsSecret(t *testing.T) {
	b := setup(t)
	id := b.begin()
	var row string
	if err := b.pool.QueryRow(t.Context(), `SELECT s::text || encode(id_hash, 'base64') FROM sessions s`).Scan(&row); err != nil || strings.Contains(row, id) {
		t.Errorf("%s, %v", row, err)
	}
}

func TestEnds(t *testing.T) {
	for name, sql := range map[string]string{
		"without use":      `UPDATE sessions SET expires_at = now() - interval '1 s'`,
		"after all":        `UPDATE sessions SET ends_at = now() - interval '1 s'`,
		"its user":         `DELETE FROM users`,
		"another password": `UPDATE users SET password = 'x'`,
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			id := b.begin()
			b.exec(`UPDATE users SET comment = 'x', password = password`)
			if !b.alive(id) {
				t.Error("ended too soon")
			}
			b.exec(sql)
			if b.alive(id) {
				t.Error("still alive")
			}
			if err := b.Purge(t.Context()); err != nil {
				t.Error(err)
			}
			var left int
			if err := b.pool.QueryRow(t.Context(), `SELECT count(*) FROM sessions`).Scan(&left); err != nil || left != 0 {
				t.Errorf("%d rows, %v", left, err)
			}
		})
	}
}

// Use moves the end on, but not past the last one; a shorter time counts at once.
func TestSlides(t *testing.T) {
	b, ctx := setup(t), t.Context()
	id := b.begin()
	left := func(column string) (d time.Duration) {
		t.Helper()
		if err := b.pool.QueryRow(ctx, `SELECT `+column+` - now() FROM sessions`).Scan(&d); err != nil {
			t.Fatal(err)
		}
		return d
	}
	b.exec(`UPDATE sessions SET expires_at = now() + interval '10 min'`)
	if b.alive(id); left("expires_at") < 59*time.Minute {
		t.Errorf("%v left after use", left("expires_at"))
	}
	if _, _, err := b.Find(ctx, id, 5*time.Minute); err != nil || left("expires_at") > 5*time.Minute {
		t.Errorf("%v left, %v", left("expires_at"), err)
	}
	b.exec(`UPDATE sessions SET ends_at = now() + interval '7 min'`)
	if b.alive(id); left("expires_at") > 7*time.Minute {
		t.Errorf("%v left, and %v at most", left("expires_at"), left("ends_at"))
	}
}

func TestOldestGiveWay(t *testing.T) {
	b := setup(t)
	first := b.begin()
	b.exec(`UPDATE sessions SET expires_at = expires_at - interval '1 min'`)
	var last string
	for range 64 {
		last = b.begin()
	}
	var count int
	if err := b.pool.QueryRow(t.Context(), `SELECT count(*) FROM sessions`).Scan(&count); err != nil || count != 64 || b.alive(first) || !b.alive(last) {
		t.Errorf("%d sessions, %v", count, err)
	}
}

func TestOIDCToken(t *testing.T) {
	b, ctx := setup(t), t.Context()
	id, err := b.Begin(ctx, b.anna, time.Hour, "the.id.token")
	if err != nil {
		t.Fatal(err)
	}
	if got, ok, err := b.Find(ctx, id.Reveal(), time.Hour); !ok || !got.OIDC || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
	if token, err := b.End(ctx, id.Reveal()); token.Reveal() != "the.id.token" || err != nil {
		t.Errorf("%q, %v", token.Reveal(), err)
	}
}
