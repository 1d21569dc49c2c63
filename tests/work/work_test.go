// Package work tests what goes on in the background, on the whole product: webhooks reach real servers, and work that is
// cut off by kill -9 goes on.
package work

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"berth/tests/berthtest"
)

// start runs a Berth whose webhooks may go to this machine.
func start(t *testing.T) *berthtest.Server {
	t.Helper()
	config := filepath.Join(t.TempDir(), "berth.yaml")
	if err := os.WriteFile(config, []byte("allow_targets: [127.0.0.1]\naudit_chain: true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return berthtest.Start(t, berthtest.Options{Args: []string{"--config", config}})
}

// receiver is a webhook's target. While it holds, requests wait and are then dropped.
type receiver struct {
	*httptest.Server
	got   chan string // bodies of requests that were answered
	hold  atomic.Bool
	stuck atomic.Int64 // requests that were held
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{got: make(chan string, 1000)}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		if r.hold.Load() {
			r.stuck.Add(1)
			<-req.Context().Done() // until the other side is gone, or gives up
			return
		}
		r.got <- string(body)
	}))
	t.Cleanup(r.Close)
	return r
}

func await[T any](t *testing.T, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(90 * time.Second):
		t.Fatalf("%s: nothing came", what)
	}
	return v
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(90 * time.Second); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 90 s", what)
		}
	}
}

// policy makes a webhook policy on the project library, and gives its path.
func policy(t *testing.T, s *berthtest.Server, address string, types ...string) string {
	t.Helper()
	s.API(t, s.Admin(t), "POST", "/projects/library/webhook/policies", map[string]any{
		"name": berthtest.Name(), "enabled": true, "event_types": types,
		"targets": []map[string]any{{"type": "http", "address": address + "/hook", "auth_header": "Bearer x"}},
	}, 201)
	var list []struct{ ID int64 }
	decode(t, s.API(t, s.Admin(t), "GET", "/projects/library/webhook/policies", nil, 200), &list)
	return "/projects/library/webhook/policies/" + strconv.FormatInt(list[0].ID, 10)
}

func decode(t *testing.T, data []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
}

type execution struct {
	ID     int64
	Status string
}

func executions(t *testing.T, s *berthtest.Server, policy string) (list []execution) {
	t.Helper()
	decode(t, s.API(t, s.Admin(t), "GET", policy+"/executions?page_size=100", nil, 200), &list)
	return list
}

// A push, a pull and a deletion are told of, with what Harbor's receivers read, and are in the audit trail, whose chain holds.
func TestWebhooks(t *testing.T) {
	s, r := start(t), newReceiver(t)
	hook := policy(t, s, r.URL, "PUSH_ARTIFACT", "PULL_ARTIFACT", "DELETE_ARTIFACT")
	registry := s.Registry(t, s.Admin(t))
	image := berthtest.NewImage(1, 1000)
	registry.PushImage(t, "library/app", "1.0", image)
	want := func(kind, tag string) {
		t.Helper()
		var p struct {
			Type     string
			Operator string
			Data     struct {
				Resources []struct {
					Digest, Tag string
					URL         string `json:"resource_url"`
				}
				Repository struct {
					FullName string `json:"repo_full_name"`
				}
			} `json:"event_data"`
		}
		body := await(t, r.got, kind)
		decode(t, []byte(body), &p)
		if p.Type != kind || p.Operator != "admin" || len(p.Data.Resources) != 1 || p.Data.Resources[0].Tag != tag || p.Data.Resources[0].Digest != image.Manifest.Digest ||
			p.Data.Repository.FullName != "library/app" || !strings.HasPrefix(p.Data.Resources[0].URL, s.Addr+"/library/app") {
			t.Errorf("%s: %s", kind, body)
		}
	}
	want("PUSH_ARTIFACT", "1.0")
	registry.Do(t, "GET", "/v2/library/app/manifests/"+image.Manifest.Digest, nil)
	want("PULL_ARTIFACT", image.Manifest.Digest)
	s.DeleteArtifact(t, s.Admin(t), "library", "app", "1.0")
	want("DELETE_ARTIFACT", "1.0")
	until(t, "the deliveries' end", func() bool {
		done := 0
		for _, e := range executions(t, s, hook) {
			if e.Status == "Success" {
				done++
			}
		}
		return done == 3
	})
	sh := berthtest.NewShell(t)
	bin, err := berthtest.Binary()
	if err != nil {
		t.Fatal(err)
	}
	if out := sh.Run(t, bin, "audit", "verify", "--data", s.Dir); !strings.Contains(out, " 0 faults\nhead ") {
		t.Errorf("%s", out)
	}
	if out := sh.Run(t, bin, "audit", "export", "--data", s.Dir, "--format", "csv"); strings.Count(out, "artifact") < 3 {
		t.Errorf("%s", out)
	}
}

// What a killed Berth was delivering, and what it had not begun, is delivered by the next one.
func TestKilledInDelivery(t *testing.T) {
	s, r := start(t), newReceiver(t)
	hook := policy(t, s, r.URL, "PUSH_ARTIFACT")
	r.hold.Store(true)
	registry := s.Registry(t, s.Admin(t))
	const n = 5
	for i := range n {
		registry.PushImage(t, "library/app", fmt.Sprint(i), berthtest.NewImage(1, 100))
	}
	until(t, "a delivery", func() bool { return r.stuck.Load() > 0 })
	s.Kill()
	r.hold.Store(false)
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for len(seen) < n {
		seen[await(t, r.got, "after the restart")] = true
	}
	until(t, "the deliveries' end", func() bool {
		list := executions(t, s, hook)
		for _, e := range list {
			if e.Status != "Success" {
				return false
			}
		}
		return len(list) == n // one for each push, however often it was begun
	})
}

// A job service that dies beside others gives its work to them.
func TestKilledJobs(t *testing.T) {
	s, r := start(t), newReceiver(t)
	hook := policy(t, s, r.URL, "PUSH_ARTIFACT")
	config := filepath.Join(t.TempDir(), "jobs.yaml")
	if err := os.WriteFile(config, []byte("allow_targets: [127.0.0.1]\naudit_chain: true\nmetrics: \"off\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	second, err := berthtest.StartProcess("msg=ready", nil, "jobs", "--config", config, "--data", s.Dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := second.Stop(); err != nil && !t.Failed() {
			t.Log(err) // it was killed
		}
	})
	type pool struct {
		ID  string `json:"worker_pool_id"`
		PID int
	}
	var doomed string
	until(t, "two pools", func() bool {
		var pools []pool
		decode(t, s.API(t, s.Admin(t), "GET", "/jobservice/pools", nil, 200), &pools)
		for _, p := range pools {
			if p.PID == second.Pid() {
				doomed = p.ID
			}
		}
		return len(pools) == 2 && doomed != ""
	})
	r.hold.Store(true)
	registry := s.Registry(t, s.Admin(t))
	pushed := 0
	until(t, "a delivery by the second", func() bool {
		registry.PushImage(t, "library/app", fmt.Sprint(pushed), berthtest.NewImage(1, 100))
		pushed++
		var workers []struct{}
		decode(t, s.API(t, s.Admin(t), "GET", "/jobservice/pools/"+doomed+"/workers", nil, 200), &workers)
		return len(workers) > 0
	})
	second.Kill()
	r.hold.Store(false)
	seen := map[string]bool{}
	for len(seen) < pushed {
		seen[await(t, r.got, "after the kill")] = true
	}
	until(t, "the deliveries' end", func() bool {
		list := executions(t, s, hook)
		for _, e := range list {
			if e.Status != "Success" {
				return false
			}
		}
		return len(list) == pushed
	})
}
