// Package logs tests what an operator reads when something is wrong, on the whole product: one request's id finds all of
// a push, no secret is kept, floods harm nobody, and a log service that is killed comes again.
package logs

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"berth/appliance/syslog"
	"berth/services/segment"
	"berth/tests/berthtest"
)

func await[T any](t *testing.T, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(90 * time.Second):
		t.Fatalf("%s: nothing came", what)
	}
	return v
}

func decode(t *testing.T, data []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !done(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 60 s", what)
		}
	}
}

// messages reads a log service's directory, while it runs or after.
func messages(t *testing.T, dir string, wanted func(*segment.Record) bool) (list []segment.Record) {
	t.Helper()
	store, err := segment.OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for from := store.First(); from < store.End(); {
		if from, err = store.Read(t.Context(), from, 1000, func(r *segment.Record) error {
			if wanted(r) {
				list = append(list, copied(r))
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	return list
}

// copied is a record that outlives its reading.
func copied(r *segment.Record) segment.Record {
	c := *r
	c.Component, c.Text = strings.Clone(r.Component), strings.Clone(r.Text)
	c.Attrs = nil
	for _, a := range r.Attrs {
		c.Attrs = append(c.Attrs, syslog.Attr{Key: strings.Clone(a.Key), Value: strings.Clone(a.Value)})
	}
	return c
}

// find gives the messages of a Berth that have an id, oldest first.
func find(t *testing.T, s *berthtest.Server, id string) []segment.Record {
	t.Helper()
	return messages(t, filepath.Join(s.Dir, "logs"), func(r *segment.Record) bool {
		return r.Get(syslog.RequestID) == id || r.Get(syslog.TokenRequest) == id
	})
}

// spoke tells how many messages with that text a component has.
func spoke(list []segment.Record, component, text string) (n int) {
	for _, m := range list {
		if m.Component == component && m.Text == text {
			n++
		}
	}
	return n
}

// settings writes a settings file and gives the flag for it.
func settings(t *testing.T, text string) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "berth.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--config", file}
}

// The id in the answer to a push finds what the front door, the registry and the jobs service (audit trail, webhook) have
// to say of it; the id of the token's request finds the whole push, with the token service. A refusal says why.
func TestOneIDFindsOnePush(t *testing.T) {
	t.Parallel()
	s := berthtest.Start(t, berthtest.Options{Args: settings(t, "allow_targets: [127.0.0.1]\nlogs: {listen: off}\n")})
	hook := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer hook.Close()
	s.API(t, s.Admin(t), "POST", "/projects/library/webhook/policies", map[string]any{"name": "x", "enabled": true,
		"event_types": []string{"PUSH_ARTIFACT"}, "targets": []map[string]any{{"type": "http", "address": hook.URL}}}, 201)
	registry := s.Registry(t, s.Admin(t))
	image := berthtest.NewImage(2, 1000)
	for _, blob := range append(image.Layers, image.Config) {
		registry.PushBlob(t, "library/app", blob)
	}
	id := registry.PushManifest(t, "library/app", "1.0", image.Manifest).Header.Get("X-Request-Id")
	if id == "" {
		t.Fatal("the answer has no request id")
	}
	var list []segment.Record
	until(t, "the lines of one request", func() bool {
		list = find(t, s, id)
		return spoke(list, "proxy", "request") == 1 && spoke(list, "registry", "manifest pushed") == 1 && spoke(list, "jobs", "event handled") == 1 &&
			spoke(list, "jobs", "a task's run is done") == 1
	})
	for _, m := range list {
		if m.Component == "proxy" && (m.Get("method") != "PUT" || m.Get("path") != "/v2/library/app/manifests/1.0" || m.Get("status") != "201" || m.Get("user") != "admin") {
			t.Errorf("the front door said %+v", m)
		}
		if m.Component == "registry" && (m.Get("repository") != "library/app" || m.Get("tags") != "1.0" || !strings.HasPrefix(m.Get("digest"), "sha256:")) {
			t.Errorf("the registry said %+v", m)
		}
	}
	push := list[0].Get(syslog.TokenRequest)
	until(t, "the lines of the whole push", func() bool {
		list = find(t, s, push)
		return spoke(list, "token", "token issued") == 1 && spoke(list, "proxy", "request") >= 8 && spoke(list, "jobs", "event handled") == 1
	})

	// A push that a rule refuses, with an id of the client's own.
	s.API(t, s.Admin(t), "POST", "/projects/library/immutabletagrules", json.RawMessage(`{"template":"immutable_template","action":"immutable",
		"tag_selectors":[{"kind":"doublestar","decoration":"matches","pattern":"1.*"}],
		"scope_selectors":{"repository":[{"kind":"doublestar","decoration":"repoMatches","pattern":"**"}]}}`), 201)
	other := berthtest.NewImage(1, 1000)
	for _, blob := range append(other.Layers, other.Config) {
		registry.PushBlob(t, "library/app", blob)
	}
	refused := registry.Do(t, "PUT", "/v2/library/app/manifests/1.0", other.Manifest.Data, "Content-Type", "application/vnd.oci.image.manifest.v1+json", "X-Request-Id", "pipeline-4711")
	if refused.StatusCode/100 != 4 {
		t.Fatalf("the push was not refused: %s", refused.Status)
	}
	until(t, "the reason", func() bool {
		list = find(t, s, "pipeline-4711")
		return spoke(list, "registry", "request refused") == 1
	})
	for _, m := range list {
		if m.Component == "registry" && (!strings.Contains(m.Get("reason"), "immutable") || m.Get("code") != "DENIED") {
			t.Errorf("the registry said %+v", m)
		}
	}
}

// While one component floods the log, images are pushed and pulled, their lines are all kept, and the flood's are
// limited and counted.
func TestFloodHarmsNobody(t *testing.T) {
	t.Parallel()
	s := berthtest.Start(t, berthtest.Options{Args: settings(t, "logs: {listen: off, rate: 2000}\n")})
	conn, err := net.Dial("unix", filepath.Join(s.Dir, "run", "syslog.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	flooded := make(chan struct{})
	go func() {
		defer close(flooded)
		line := []byte(strings.Repeat("<14>flood: "+strings.Repeat("x", 200)+"\n", 100))
		for range 1000 { // 100,000 messages
			if _, err := conn.Write(line); err != nil {
				return
			}
		}
	}()
	registry := s.Registry(t, s.Admin(t))
	var ids []string
	for i := range 10 {
		image := berthtest.NewImage(1, 1000)
		for _, blob := range append(image.Layers, image.Config) {
			registry.PushBlob(t, "library/app", blob)
		}
		ids = append(ids, registry.PushManifest(t, "library/app", fmt.Sprint(i), image.Manifest).Header.Get("X-Request-Id"))
	}
	await(t, flooded, "the end of the flood")
	for _, id := range ids {
		until(t, "the lines of "+id, func() bool {
			list := find(t, s, id)
			return spoke(list, "proxy", "request") == 1 && spoke(list, "registry", "manifest pushed") == 1
		})
	}
	until(t, "the count of what was dropped", func() bool {
		return len(messages(t, filepath.Join(s.Dir, "logs"), func(r *segment.Record) bool { return r.Component == "logs" && r.Get("of") == "flood" })) > 0
	})
}

// A log service of its own process that is killed comes again with what it had, and the others' lines of the meantime.
func TestKilledLogService(t *testing.T) {
	t.Parallel()
	p, data := serve(t, "metrics: off\nlogs: {listen: off}\n")
	socket := filepath.Join(data, "run", "syslog.sock")
	say := func(from, to int) {
		t.Helper()
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for i := from; i < to; i++ {
			if _, err := fmt.Fprintf(conn, "<14>x: %d\n", i); err != nil {
				t.Fatal(err)
			}
		}
	}
	count := func() int {
		return len(messages(t, filepath.Join(data, "logs"), func(r *segment.Record) bool { return r.Component == "x" }))
	}
	say(0, 1000)
	until(t, "the first thousand on disk", func() bool { return count() == 1000 })
	p.Kill()
	if err := p.Restart(); err != nil {
		t.Fatal(err)
	}
	say(1000, 2000)
	until(t, "all two thousand", func() bool { return count() == 2000 })
}

// When the fault is ours the client is told the request's id, also one that shows no headers, and nothing of the cause; the
// id finds the cause.
func TestFaultNamesItsRequest(t *testing.T) {
	t.Parallel()
	s := berthtest.Start(t, berthtest.Options{Args: settings(t, "logs: {listen: off}\n")})
	registry := s.Registry(t, s.Admin(t))
	registry.PushImage(t, "library/app", "1.0", berthtest.NewImage(1, 1000))
	database, err := pgx.Connect(t.Context(), "host="+filepath.Join(s.Dir, "run", "postgres")+" user=berth dbname=berth")
	if err != nil {
		t.Fatal(err)
	}
	defer database.Close(context.Background())
	if _, err := database.Exec(t.Context(), `ALTER TABLE tags RENAME TO somewhere_else`); err != nil {
		t.Fatal(err)
	}
	reply := registry.Do(t, "GET", "/v2/library/app/manifests/1.0", nil)
	id := reply.Header.Get("X-Request-Id")
	if reply.StatusCode != http.StatusInternalServerError || !strings.Contains(string(reply.Data), id) || strings.Contains(string(reply.Data), "tags") {
		t.Errorf("the answer is %s %s", reply.Status, reply.Data)
	}
	until(t, "the cause", func() bool {
		said := berthtest.Run(t, "logs", "--data", s.Dir, "--request", id, "--level", "error", "-o", "json")
		return strings.Contains(said.Stdout, `"component":"registry"`) && strings.Contains(said.Stdout, `relation \"tags\" does not exist`)
	})
}
