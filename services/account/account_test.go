package account_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"berth/appliance/fault"
	"berth/appliance/secret"
	"berth/services/access"
	"berth/services/account"
	"berth/services/database"
	"berth/services/dbtest"
	"berth/services/event"
	"berth/services/query"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

const password = "Harbor12345"

type bundle struct {
	*account.Store
	pool *pgxpool.Pool
}

// setup gives a store whose Run has begun to listen, with the first administrator.
func setup(t *testing.T) bundle {
	t.Helper()
	pool := dbtest.New(t)
	b := bundle{newStore(t, pool), pool}
	run(t, b.Store, pool, 1)
	if made, err := b.EnsureAdmin(t.Context(), password); err != nil || !made {
		t.Fatalf("admin: %v, %v", made, err)
	}
	return b
}

func newStore(t *testing.T, pool *pgxpool.Pool) *account.Store {
	t.Helper()
	outbox, err := event.NewOutbox(pool)
	if err != nil {
		t.Fatal(err)
	}
	return account.New(pool, secret.NewKey(make([]byte, 32)), outbox)
}

// run has a store listen and waits until n stores do.
func run(t *testing.T, s *account.Store, pool *pgxpool.Pool, n int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- database.Listen(ctx, pool, s.Channel()) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Listen: %v", err)
		}
	})
	eventually(t, fmt.Sprintf("%d stores listen", n), func() bool { return listeners(t, pool) == n })
}

func listeners(t *testing.T, pool *pgxpool.Pool) (n int) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity
		WHERE datname = current_database() AND query = 'LISTEN "berth_accounts"' AND state = 'idle'`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 500 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}

func (b bundle) user(t *testing.T, name string) int64 {
	t.Helper()
	id, err := b.CreateUser(t.Context(), account.NewUser{Username: name, Password: password,
		Profile: account.Profile{Email: name + "@example.com", Realname: "R"}})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (b bundle) project(t *testing.T, name string) (id int64) {
	t.Helper()
	if err := b.pool.QueryRow(t.Context(), `INSERT INTO projects (name, owner_id) VALUES ($1, 1) RETURNING id`, name).Scan(&id); err != nil {
		t.Fatal(err)
	}
	return id
}

func (b bundle) events(t *testing.T) (names []string) {
	t.Helper()
	rows, err := b.pool.Query(t.Context(), `SELECT args->>'operation' || ' ' || (args->>'resource_type') || ' ' || (args->>'resource') FROM river_job ORDER BY id`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatal(err)
		}
		names = append(names, s)
	}
	return names
}

func want(t *testing.T, err error, kind fault.Kind) {
	t.Helper()
	if !fault.Is(err, kind) {
		t.Errorf("got %v, want a fault %q", err, kind)
	}
}

func TestAuthenticateUser(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t), t.Context()
	id := b.user(t, "Anna")
	for _, name := range []string{"Anna", "anna", "anna@example.com"} {
		p, err := b.Authenticate(ctx, name, password, "10.0.0.1")
		if err != nil || p.Kind != access.User || p.ID != id || p.Name != "Anna" || p.Sysadmin {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
	if p, err := b.Authenticate(ctx, "admin", password, ""); err != nil || !p.Sysadmin {
		t.Errorf("admin: %+v, %v", p, err)
	}
	for name, pw := range map[string]string{"Anna": "harbor12345", "nobody": password, "": "", "admin": "", "a\x00b": "x", "\xff": "x"} {
		_, err := b.Authenticate(ctx, name, pw, "10.0.0.1")
		want(t, err, fault.Unauthenticated)
	}
}

// A password change ends the old password's use at once: in the store that
// made the change, and in another process.
func TestChangesAreHeardOf(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t), t.Context()
	other := newStore(t, b.pool)
	run(t, other, b.pool, 2)
	id := b.user(t, "anna")
	login := func(s *account.Store, pw string) error {
		_, err := s.Authenticate(ctx, "anna", pw, "10.0.0.1")
		return err
	}
	for _, s := range []*account.Store{b.Store, other} {
		if err := login(s, password); err != nil {
			t.Fatal(err)
		}
		want(t, login(s, "Changed12345"), fault.Unauthenticated)
	}
	if err := b.ResetPassword(ctx, id, "Changed12345"); err != nil {
		t.Fatal(err)
	}
	want(t, login(b.Store, password), fault.Unauthenticated)
	if err := login(b.Store, "Changed12345"); err != nil {
		t.Errorf("the new password: %v", err)
	}
	eventually(t, "the other process forgets", func() bool { return login(other, password) != nil })
	eventually(t, "the other process forgets the refusal too", func() bool { return login(other, "Changed12345") == nil })
	if err := b.DeleteUser(ctx, id); err != nil {
		t.Fatal(err)
	}
	want(t, login(b.Store, "Changed12345"), fault.Unauthenticated)
	eventually(t, "the other process forgets the user", func() bool { return login(other, "Changed12345") != nil })
}

// When the listening connection dies the store drops what it remembers, and
// listens again.
func TestListensAgain(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t), t.Context()
	if _, err := b.Authenticate(ctx, "admin", password, ""); err != nil {
		t.Fatal(err)
	}
	var first int
	find := `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query = 'LISTEN "berth_accounts"'`
	if err := b.pool.QueryRow(ctx, find).Scan(&first); err != nil {
		t.Fatal(err)
	}
	if _, err := b.pool.Exec(ctx, `SELECT pg_terminate_backend($1)`, first); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another connection listens", func() bool {
		var pid int
		return b.pool.QueryRow(ctx, find).Scan(&pid) == nil && pid != first
	})
	if _, err := b.Authenticate(ctx, "admin", password, ""); err != nil {
		t.Error(err)
	}
}

// Wrong passwords slow their own source down and nobody else. A repeated wrong
// password is no new guess.
func TestBackoffBySource(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t), t.Context()
	for range 20 {
		_, err := b.Authenticate(ctx, "admin", "OutOfDate1", "10.0.0.9")
		want(t, err, fault.Unauthenticated)
	}
	var slowed bool
	for i := range 6 {
		_, err := b.Authenticate(ctx, "admin", fmt.Sprintf("Guess%d", i), "10.0.0.1")
		if fault.Is(err, fault.TooMany) {
			slowed = true
			if w, ok := errors.AsType[*account.Backoff](err); !ok || w.Wait <= 0 || w.Wait > 30*time.Second {
				t.Errorf("no wait in %v", err)
			}
			break
		}
	}
	if !slowed {
		t.Error("six guesses were not slowed down")
	}
	_, err := b.Authenticate(ctx, "admin", password, "10.0.0.1")
	want(t, err, fault.TooMany)
	if _, err := b.Authenticate(ctx, "admin", password, "10.0.0.2"); err != nil {
		t.Errorf("the right password from elsewhere: %v", err)
	}
	_, err = b.Authenticate(ctx, "admin", password, "10.0.0.1")
	want(t, err, fault.TooMany) // though it is remembered by now: a hit would confirm a guess
}

// A hundred logins at once with one right password all succeed.
func TestLoginStorm(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if _, err := b.Authenticate(t.Context(), "admin", password, "10.0.0.1"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestUsers(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t), t.Context()
	id := b.user(t, "anna")
	b.user(t, "bert")
	u, err := b.User(ctx, id)
	if err != nil || u.Username != "anna" || u.Email != "anna@example.com" || u.Created.IsZero() {
		t.Errorf("%+v, %v", u, err)
	}
	if again, err := b.UserByName(ctx, "ANNA"); err != nil || again.ID != id {
		t.Errorf("by name: %+v, %v", again, err)
	}
	_, err = b.User(ctx, 99)
	want(t, err, fault.NotFound)

	terms, _ := query.Parse("username=~ann")
	page, err := b.ListUsers(ctx, query.Query{Terms: terms, Page: 1, Size: 10})
	if err != nil || page.Total != 1 || page.Items[0].ID != id {
		t.Errorf("%+v, %v", page, err)
	}
	page, err = b.ListUsers(ctx, query.Query{Page: 2, Size: 1, Sort: query.ParseSort("-username")})
	if err != nil || page.Total != 2 || len(page.Items) != 1 || page.Items[0].Username != "anna" {
		t.Errorf("%+v, %v", page, err)
	}

	valid := account.NewUser{Username: "carl", Password: password, Profile: account.Profile{Email: "c@example.com", Realname: "C"}}
	for name, spoil := range map[string]func(*account.NewUser){
		"weak password": func(n *account.NewUser) { n.Password = "harbor12345" },
		"no e-mail":     func(n *account.NewUser) { n.Email = "" },
		"bad e-mail":    func(n *account.NewUser) { n.Email = "c@" },
		"no name":       func(n *account.NewUser) { n.Username = "" },
		"robot's name":  func(n *account.NewUser) { n.Username = "robot$x" },
		"line break":    func(n *account.NewUser) { n.Username = "a\nb" },
		"no real name":  func(n *account.NewUser) { n.Realname = "" },
		"long comment":  func(n *account.NewUser) { n.Comment = "1234567890123456789012345678901" },
	} {
		n := valid
		spoil(&n)
		if _, err := b.CreateUser(ctx, n); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, n := range []account.NewUser{{Username: "Anna", Password: password, Profile: valid.Profile},
		{Username: "carl", Password: password, Profile: account.Profile{Email: "ANNA@example.com", Realname: "C"}}} {
		_, err := b.CreateUser(ctx, n)
		want(t, err, fault.Conflict)
	}

	if err := b.UpdateUser(ctx, id, account.Profile{Email: "new@example.com", Realname: "A", Comment: "c"}); err != nil {
		t.Error(err)
	}
	want(t, b.UpdateUser(ctx, id, account.Profile{Email: "bert@example.com", Realname: "A"}), fault.Conflict)
	want(t, b.UpdateUser(ctx, 99, account.Profile{Email: "x@example.com", Realname: "A"}), fault.NotFound)

	got := b.events(t)
	if want := []string{"create user admin", "create user anna", "create user bert", "update user anna"}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("events %v, want %v", got, want)
	}
}

func TestPasswordChange(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t), t.Context()
	id := b.user(t, "anna")
	want(t, b.ChangePassword(ctx, id, "wrong", "Changed12345"), fault.Forbidden)
	want(t, b.ChangePassword(ctx, id, password, password), fault.Invalid)
	want(t, b.ChangePassword(ctx, id, password, "weak"), fault.Invalid)
	want(t, b.ResetPassword(ctx, 99, "Changed12345"), fault.NotFound)
	want(t, b.ResetPassword(ctx, id, password), fault.Invalid)
	if changed, err := b.EnsurePassword(ctx, id, password); changed || err != nil {
		t.Errorf("the password that it has: %v, %v", changed, err)
	}
	if err := b.ChangePassword(ctx, id, password, "Changed12345"); err != nil {
		t.Error(err)
	}
}

// However many try at once, one system administrator stays.
func TestLastSysadminStays(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t), t.Context()
	want(t, b.SetSysadmin(ctx, 1, false), fault.Precondition)
	want(t, b.DeleteUser(ctx, 1), fault.Precondition)
	id := b.user(t, "anna")
	if err := b.SetSysadmin(ctx, id, true); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, who := range []int64{1, id} {
		wg.Go(func() { b.SetSysadmin(ctx, who, false) })
	}
	wg.Wait()
	var left int
	if err := b.pool.QueryRow(ctx, `SELECT count(*) FROM users WHERE sysadmin`).Scan(&left); err != nil || left != 1 {
		t.Errorf("%d system administrators left, %v", left, err)
	}
}

// A user's projects stay when the user goes.
func TestDeleteOwner(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t), t.Context()
	id, project := b.user(t, "anna"), b.project(t, "p")
	if _, err := b.pool.Exec(ctx, `UPDATE projects SET owner_id = $1`, id); err != nil {
		t.Fatal(err)
	}
	if _, err := b.pool.Exec(ctx, `INSERT INTO project_members (project_id, user_id, role) VALUES ($1, $2, 1)`, project, id); err != nil {
		t.Fatal(err)
	}
	if err := b.DeleteUser(ctx, id); err != nil {
		t.Fatal(err)
	}
	var owner *int64
	var members int
	if err := b.pool.QueryRow(ctx, `SELECT owner_id, (SELECT count(*) FROM project_members) FROM projects`).Scan(&owner, &members); err != nil || owner != nil || members != 0 {
		t.Errorf("owner %v, %d members, %v", owner, members, err)
	}
}

func TestEnsureAdmin(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	s, ctx := newStore(t, pool), t.Context()
	_, err := s.EnsureAdmin(ctx, "weak")
	want(t, err, fault.Invalid)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := s.EnsureAdmin(ctx, password); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if made, err := s.EnsureAdmin(ctx, ""); made || err != nil {
		t.Errorf("a later start: %v, %v", made, err)
	}
	if u, err := s.UserByName(ctx, "admin"); err != nil || u.ID != 1 || !u.Sysadmin {
		t.Errorf("%+v, %v", u, err)
	}
	if id := (bundle{s, pool}).user(t, "anna"); id != 2 {
		t.Errorf("the next user has id %d", id)
	}
}

var (
	admin = access.Principal{Kind: access.User, ID: 1, Name: "admin", Sysadmin: true}
	pull  = access.Pair{Resource: "repository", Action: "pull"}
	push  = access.Pair{Resource: "repository", Action: "push"}
)

func projectRobot(name, project string, pairs ...access.Pair) account.NewRobot {
	return account.NewRobot{Name: name, Level: "project", Duration: -1,
		Permissions: []access.Permission{{Kind: "project", Namespace: project, Access: pairs}}}
}

func TestRobots(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t), t.Context()
	project := b.project(t, "p")
	r, secret, err := b.CreateRobot(ctx, admin, projectRobot("r1", "p", push))
	if err != nil || r.Name != "robot$p+r1" || r.ProjectID != project || r.Level != "project" || !r.Expires.IsZero() || len(secret.Reveal()) != 32 {
		t.Fatalf("%+v, %v", r, err)
	}
	p, err := b.Authenticate(ctx, "robot$p+r1", secret.Reveal(), "10.0.0.1")
	if err != nil || p.Kind != access.Robot || p.ID != r.ID || p.Name != "robot$p+r1" {
		t.Fatalf("%+v, %v", p, err)
	}
	// Push implies pull.
	if !access.May(p, access.Target{ProjectID: project, Project: "p"}, "repository", "pull") {
		t.Error("a robot that may push may not pull")
	}
	_, err = b.Authenticate(ctx, "robot$p+r1", "wrong", "10.0.0.1")
	want(t, err, fault.Unauthenticated)
	_, err = b.Authenticate(ctx, "p+r1", secret.Reveal(), "10.0.0.1")
	want(t, err, fault.Unauthenticated)

	_, _, err = b.CreateRobot(ctx, admin, projectRobot("r1", "p", pull))
	want(t, err, fault.Conflict)
	_, _, err = b.CreateRobot(ctx, admin, projectRobot("r2", "nosuch", pull))
	want(t, err, fault.NotFound)
	_, _, err = b.CreateRobot(ctx, admin, projectRobot("R 2", "p", pull))
	want(t, err, fault.Invalid)
	_, _, err = b.CreateRobot(ctx, p, projectRobot("r2", "p", access.Pair{Resource: "artifact", Action: "delete"}))
	want(t, err, fault.Forbidden)
	for _, days := range []int{0, -2, 1 << 30} {
		n := projectRobot("r2", "p", pull)
		n.Duration = days
		_, _, err = b.CreateRobot(ctx, admin, n)
		want(t, err, fault.Invalid)
	}

	own, err := b.SetRobotSecret(ctx, r.ID, "Harbor12345x", 0)
	if err != nil || own != "" {
		t.Errorf("own secret: %v, %v", own, err)
	}
	_, err = b.Authenticate(ctx, "robot$p+r1", secret.Reveal(), "10.0.0.2")
	want(t, err, fault.Unauthenticated)
	_, err = b.SetRobotSecret(ctx, r.ID, "weak", 0)
	want(t, err, fault.Invalid)
	made, err := b.SetRobotSecret(ctx, r.ID, "", 0)
	if err != nil || len(made.Reveal()) != 32 {
		t.Errorf("made secret: %v", err)
	}
	if _, err := b.Authenticate(ctx, "robot$p+r1", made.Reveal(), "10.0.0.2"); err != nil {
		t.Error(err)
	}

	// With an overlap both work, until its end.
	next, err := b.SetRobotSecret(ctx, r.ID, "", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{made.Reveal(), next.Reveal()} {
		if _, err := b.Authenticate(ctx, "robot$p+r1", s, "10.0.0.4"); err != nil {
			t.Error(err)
		}
	}
	if _, err := b.pool.Exec(ctx, `UPDATE robots SET old_secret_until = now() WHERE id = $1`, r.ID); err != nil {
		t.Fatal(err)
	}
	last, err := b.SetRobotSecret(ctx, r.ID, "", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Authenticate(ctx, "robot$p+r1", made.Reveal(), "10.0.0.5")
	want(t, err, fault.Unauthenticated)
	_, err = b.SetRobotSecret(ctx, r.ID, "", 1000*time.Hour)
	want(t, err, fault.Invalid)
	if _, err := b.pool.Exec(ctx, `UPDATE robots SET old_secret_until = now() WHERE id = $1`, r.ID); err != nil {
		t.Fatal(err)
	}
	_, err = b.Authenticate(ctx, "robot$p+r1", next.Reveal(), "10.0.0.6")
	want(t, err, fault.Unauthenticated)
	made = last

	change := account.RobotChange{Description: "d", Duration: 1, Disabled: true, Permissions: projectRobot("", "p", pull, push).Permissions}
	if err := b.UpdateRobot(ctx, admin, r.ID, change); err != nil {
		t.Fatal(err)
	}
	_, err = b.Authenticate(ctx, "robot$p+r1", made.Reveal(), "10.0.0.3")
	want(t, err, fault.Unauthenticated)
	got, err := b.Robot(ctx, r.ID)
	if err != nil || !got.Disabled || got.Description != "d" || !got.Expires.Equal(got.Created.AddDate(0, 0, 1)) {
		t.Errorf("%+v, %v", got, err)
	}
	b.project(t, "q")
	change.Permissions = projectRobot("", "q", pull).Permissions
	want(t, b.UpdateRobot(ctx, admin, r.ID, change), fault.Invalid)

	if err := b.DeleteRobot(ctx, r.ID); err != nil {
		t.Error(err)
	}
	want(t, b.DeleteRobot(ctx, r.ID), fault.NotFound)
}

func TestListRobots(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t), t.Context()
	project := b.project(t, "p")
	if _, _, err := b.CreateRobot(ctx, admin, projectRobot("r1", "p", pull)); err != nil {
		t.Fatal(err)
	}
	n := projectRobot("sys", "*", pull)
	n.Level, n.Duration = "system", 30
	if _, _, err := b.CreateRobot(ctx, admin, n); err != nil {
		t.Fatal(err)
	}
	for q, want := range map[string]string{
		"": "robot$sys",
		fmt.Sprintf("Level=project,ProjectID=%d", project): "robot$p+r1",
		"Level=project,name=~r1":                           "robot$p+r1",
		"Level=project,ProjectID=0":                        "",
	} {
		terms, err := query.Parse(q)
		if err != nil {
			t.Fatal(err)
		}
		page, err := b.ListRobots(ctx, query.Query{Terms: terms})
		got := ""
		for _, r := range page.Items {
			got += r.Name
		}
		if err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", q, got, err, want)
		}
	}
}

// The prefix is part of robots' names as of now, and users cannot pass for robots.
func TestRobotPrefix(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t), t.Context()
	b.project(t, "p")
	_, secret, err := b.CreateRobot(ctx, admin, projectRobot("r1", "p", pull))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Authenticate(ctx, "robot$p+r1", secret.Reveal(), ""); err != nil {
		t.Fatal(err)
	}
	if _, err := b.pool.Exec(ctx, `INSERT INTO configurations (key, value) VALUES ('robot_name_prefix', '"bot_"')`); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the old name is refused", func() bool {
		_, err := b.Authenticate(ctx, "robot$p+r1", secret.Reveal(), "")
		return fault.Is(err, fault.Unauthenticated)
	})
	p, err := b.Authenticate(ctx, "bot_p+r1", secret.Reveal(), "")
	if err != nil || p.Name != "bot_p+r1" {
		t.Errorf("%+v, %v", p, err)
	}
}

// An expired robot is refused, and the end of a project is the end of its robots.
func TestRobotEnds(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t), t.Context()
	project := b.project(t, "p")
	r, secret, err := b.CreateRobot(ctx, admin, projectRobot("r1", "p", pull))
	if err != nil {
		t.Fatal(err)
	}
	login := func() error {
		_, err := b.Authenticate(ctx, r.Name, secret.Reveal(), "10.0.0.1")
		return err
	}
	if err := login(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.pool.Exec(ctx, `UPDATE robots SET expires_at = now() - interval '1 s'`); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the expired robot is refused", func() bool { return fault.Is(login(), fault.Unauthenticated) })
	if _, err := b.pool.Exec(ctx, `UPDATE robots SET expires_at = NULL`); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is welcome again", func() bool { return login() == nil })
	if _, err := b.pool.Exec(ctx, `DELETE FROM projects WHERE id = $1`, project); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the robot goes with its project", func() bool { return fault.Is(login(), fault.Unauthenticated) })
}

func TestRobotUseIsWrittenDown(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	s := newStore(t, pool)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.WriteUses(ctx) }()
	n := projectRobot("sys", "*", pull)
	n.Level = "system"
	r, secret, err := s.CreateRobot(t.Context(), admin, n)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Authenticate(t.Context(), r.Name, secret.Reveal(), ""); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got, err := s.Robot(t.Context(), r.ID); err != nil || time.Since(got.LastUsed) > time.Minute {
		t.Errorf("last used %v, %v", got.LastUsed, err)
	}
}

func BenchmarkAuthenticateAgain(b *testing.B) {
	pool := dbtest.New(b)
	outbox, _ := event.NewOutbox(pool)
	s := account.New(pool, secret.NewKey(make([]byte, 32)), outbox)
	if _, err := s.EnsureAdmin(b.Context(), password); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := s.Authenticate(b.Context(), "admin", password, "10.0.0.1"); err != nil {
			b.Fatal(err)
		}
	}
}
