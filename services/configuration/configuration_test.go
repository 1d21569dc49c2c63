package configuration_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"berth/appliance/fault"
	"berth/appliance/secret"
	"berth/services/configuration"
	"berth/services/database"
	"berth/services/dbtest"
	"berth/services/event"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

func open(t testing.TB, pool *pgxpool.Pool) *configuration.Store {
	t.Helper()
	outbox, err := event.NewOutbox(pool)
	if err != nil {
		t.Fatal(err)
	}
	return configuration.New(pool, secret.NewKey(make([]byte, 32)), outbox)
}

func change(t testing.TB, text string) configuration.Change {
	t.Helper()
	var c configuration.Change
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func current(t testing.TB, s *configuration.Store) configuration.Settings {
	t.Helper()
	settings, err := s.Current(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return settings
}

// What is not set has its default; a change is seen at once by who made it.
func TestUpdate(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	s := open(t, pool)
	if got := current(t, s); got != configuration.Defaults() {
		t.Errorf("fresh: %+v", got)
	}
	err := s.Update(t.Context(), change(t, `{"self_registration":true,"storage_per_project":1024,"nosuch":1,"banner_message":null,
		"oidc_extra_redirect_parms":{"a":"b"},"ldap_search_password":"s3cret","ldap_url":"ldap.example.com"}`))
	if err != nil {
		t.Fatal(err)
	}
	want := configuration.Defaults()
	want.SelfRegistration, want.StoragePerProject, want.OIDCExtraParameters = true, 1024, `{"a":"b"}`
	want.LDAPSearchPassword, want.LDAPURL = "s3cret", "ldap.example.com"
	if got := current(t, s); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	// Another process sees it too, the secret as well, which no row shows.
	if got := current(t, open(t, pool)); got != want {
		t.Errorf("elsewhere: %+v, want %+v", got, want)
	}
	var rows string
	if err := pool.QueryRow(t.Context(), `SELECT string_agg(value::text, ' ') FROM configurations`).Scan(&rows); err != nil || strings.Contains(rows, "s3cret") {
		t.Errorf("the table shows the secret (%v): %s", err, rows)
	}
	items, err := json.Marshal(current(t, s).Items(true))
	if err != nil || strings.Contains(string(items), "s3cret") || strings.Contains(string(items), "ldap_search_password") {
		t.Errorf("the items show the secret (%v): %s", err, items)
	}
	var events int
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM river_job WHERE args->>'resource_type' = 'configuration' AND args::text NOT LIKE '%s3cret%'`).Scan(&events); err != nil || events != 1 {
		t.Errorf("%d events, %v", events, err)
	}
	// The same again changes nothing.
	if err := s.Update(t.Context(), change(t, `{"self_registration":true}`)); err != nil {
		t.Fatal(err)
	}
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM river_job`).Scan(&events); err != nil || events != 1 {
		t.Errorf("%d events after no change, %v", events, err)
	}
}

// A value that cannot work is refused, names its key, and changes nothing.
func TestRefused(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	s := open(t, pool)
	for key, values := range map[string][]string{
		"auth_mode":                       {`"zzz"`, `""`},
		"project_creation_restriction":    {`"nobody"`},
		"token_expiration":                {`0`, `-1`, `100000`},
		"session_timeout":                 {`0`},
		"robot_token_duration":            {`0`, `-2`},
		"robot_name_prefix":               {`""`, `"a b"`, `"a:b"`, `"` + strings.Repeat("x", 65) + `"`},
		"storage_per_project":             {`0`, `-5`, `1125899906842625`},
		"banner_message":                  {`"no json"`},
		"audit_log_forward_endpoint":      {`"host"`, `":514"`, `"host:0"`, `"host:x"`},
		"skip_audit_log_database":         {`true`},
		"disabled_audit_log_event_types":  {`"create_artifact,nosuch"`},
		"ldap_url":                        {`"http://x"`, `"ldap://u:p@x"`, `"ldaps://"`},
		"ldap_uid":                        {`""`, `"a=b"`, `"(x)"`},
		"ldap_scope":                      {`3`, `-1`},
		"ldap_timeout":                    {`0`},
		"oidc_endpoint":                   {`"ftp://x"`},
		"oidc_scope":                      {`"profile"`},
		"oidc_group_filter":               {`"("`},
		"oidc_extra_redirect_parms":       {`"[]"`, `{"a":1}`},
		"ldap_group_membership_attribute": {`"member of"`},
		"ldap_filter":                     {`"` + strings.Repeat("x", 70000) + `"`},
	} {
		for _, value := range values {
			err := s.Update(t.Context(), change(t, fmt.Sprintf(`{"read_only":true,%q:%s}`, key, value)))
			if f := fault.Of(err); err == nil || f.Kind != fault.Invalid || f.Field != key {
				t.Errorf("%s %.40s: %v", key, value, err)
			}
		}
	}
	if got := current(t, s); got != configuration.Defaults() {
		t.Errorf("something was changed: %+v", got)
	}
	for _, text := range []string{`{"read_only":"yes"}`, `{"token_expiration":"5"}`, `{"auth_mode":1}`, `{"token_expiration":1.5}`, `[]`, `"x"`} {
		var c configuration.Change
		if err := json.Unmarshal([]byte(text), &c); err == nil {
			t.Errorf("%s was read as %v", text, c)
		}
	}
}

// Once there are users, the way they log in stays.
func TestMode(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	s := open(t, pool)
	exec(t, pool, `INSERT INTO users (username, sysadmin) VALUES ('admin', true)`)
	if err := s.Update(t.Context(), change(t, `{"auth_mode":"ldap_auth"}`)); err != nil {
		t.Fatal(err)
	}
	if ok, err := s.ModeEditable(t.Context()); !ok || err != nil {
		t.Error(ok, err)
	}
	exec(t, pool, `INSERT INTO users (username) VALUES ('someone')`)
	if ok, err := s.ModeEditable(t.Context()); ok || err != nil {
		t.Error(ok, err)
	}
	if err := s.Update(t.Context(), change(t, `{"auth_mode":"db_auth"}`)); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
	if err := s.Update(t.Context(), change(t, `{"auth_mode":"ldap_auth","read_only":true}`)); err != nil {
		t.Error("the mode that it is:", err)
	}
}

func exec(t testing.TB, pool *pgxpool.Pool, sql string) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

// A process that runs hears of changes that others make, and remembers what it
// has read until then.
func TestNotified(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	s := open(t, pool)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := database.Listen(ctx, pool, s.Channel()); err != nil {
			t.Error(err)
		}
	})
	defer func() { cancel(); running.Wait() }()
	for i := range 50 {
		prefix := fmt.Sprintf("bot%d", i)
		exec(t, pool, fmt.Sprintf(`INSERT INTO configurations VALUES ('robot_name_prefix', '"%s"') ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value`, prefix))
		for deadline := time.Now().Add(10 * time.Second); current(t, s).RobotPrefix != prefix; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("still %q, not %q", current(t, s).RobotPrefix, prefix)
			}
		}
	}
	exec(t, pool, `UPDATE configurations SET value = '1' WHERE key = 'robot_name_prefix'`)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := s.Current(t.Context()); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a setting of the wrong type is read as something else")
		}
	}
}

// Changes that come together are all kept.
func TestTogether(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	s := open(t, pool)
	var writers sync.WaitGroup
	for _, text := range []string{`{"read_only":true}`, `{"token_expiration":7}`, `{"session_timeout":8}`, `{"ldap_scope":1}`} {
		writers.Go(func() {
			if err := s.Update(t.Context(), change(t, text)); err != nil {
				t.Error(err)
			}
		})
	}
	writers.Wait()
	if got := current(t, s); !got.ReadOnly || got.TokenExpiration != 7 || got.SessionTimeout != 8 || got.LDAPScope != 1 {
		t.Errorf("%+v", got)
	}
}

func TestSet(t *testing.T) {
	t.Parallel()
	c := configuration.Change{}
	for name, text := range map[string]string{"read_only": "true", "token_expiration": "45", "banner_message": `say "hi"`, "ldap_search_password": "p"} {
		if err := c.Set(name, text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if c["read_only"] != true || c["token_expiration"] != int64(45) || c["banner_message"] != `say "hi"` {
		t.Errorf("%v", c)
	}
	for name, text := range map[string]string{"nosuch": "1", "read_only": "yes", "token_expiration": "4.5", "ldap_scope": "", "session_timeout": "1 2"} {
		if err := c.Set(name, text); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s=%s: %v", name, text, err)
		}
	}
	if names := configuration.Names(); len(names) < 60 || !configuration.Secret("oidc_client_secret") || configuration.Secret("ldap_url") {
		t.Errorf("%d names", len(names))
	}
}

func FuzzChange(f *testing.F) {
	for _, seed := range []string{`{}`, `{"read_only":true}`, `{"ldap_scope":9e99}`, `{"oidc_extra_redirect_parms":{"a":1}}`, `{"auth_mode":null}`, `[`, `{"token_expiration":-0}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var c configuration.Change
		if json.Unmarshal(b, &c) == nil && len(c) > 0 {
			if _, err := json.Marshal(c); err != nil {
				t.Error(err)
			}
		}
	})
}

func BenchmarkCurrent(b *testing.B) {
	pool := dbtest.New(b)
	s := open(b, pool)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- database.Listen(ctx, pool, s.Channel()) }()
	defer func() { cancel(); <-done }()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Current(ctx); err != nil {
			b.Fatal(err)
		}
	}
}

// A new value is tried where there is a probe; one that stays is not, and no
// value is no value to try.
func TestTry(t *testing.T) {
	t.Parallel()
	s := open(t, dbtest.New(t))
	var tried []string
	s.Try("audit_log_forward_endpoint", func(_ context.Context, value string) error {
		tried = append(tried, value)
		if value == "down:1" {
			return errors.New("refused")
		}
		return nil
	})
	if err := s.Update(t.Context(), change(t, `{"audit_log_forward_endpoint":"down:1"}`)); !fault.Is(err, fault.Invalid) {
		t.Errorf("one that is down: %v", err)
	}
	for _, text := range []string{`{"audit_log_forward_endpoint":"up:1"}`, `{"audit_log_forward_endpoint":"up:1","session_timeout":61}`, `{"audit_log_forward_endpoint":""}`} {
		if err := s.Update(t.Context(), change(t, text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	if got := strings.Join(tried, " "); got != "down:1 up:1" {
		t.Errorf("tried %q", got)
	}
}
