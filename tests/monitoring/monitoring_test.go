// Package monitoring tests what an operator sees of a whole Berth: a real Prometheus scrapes it and evaluates the rules
// and dashboards of docs/monitoring, an OpenTelemetry collector gets its spans, and `berth status` names the cause of
// what was broken on purpose.
package monitoring

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/services/trace/tracetest"
	"berth/tests/berthtest"
)

// watched is a Berth that everything can be seen of.
type watched struct {
	*berthtest.Server
	metrics string // host:port
	spans   *tracetest.Collector
	hook    chan string // bodies that a webhook's target got
}

// watch starts one.
func watch(t *testing.T) *watched {
	t.Helper()
	w := &watched{spans: tracetest.Start(t), hook: make(chan string, 100)}
	var err error
	if w.metrics, err = berthtest.FreeAddr("127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	logs, err := net.ListenPacket("udp", "127.0.0.1:0") // a collector that takes everything
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { logs.Close() })
	config := filepath.Join(t.TempDir(), "berth.yaml")
	text := fmt.Sprintf("allow_targets: [127.0.0.1]\ntraces: %s\nlogs: {listen: \"off\", forward: [{name: test, to: \"udp://%s\"}]}\n", w.spans.URL, logs.LocalAddr())
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	w.Server = berthtest.Start(t, berthtest.Options{HTTP: true, Args: []string{"--config", config, "--metrics", w.metrics}})
	target := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		w.hook <- string(b)
	}))
	t.Cleanup(target.Close)
	w.API(t, w.Admin(t), "POST", "/projects/library/webhook/policies", map[string]any{
		"name": "hook", "enabled": true, "event_types": []string{"PUSH_ARTIFACT"},
		"targets": []map[string]any{{"type": "http", "address": target.URL}},
	}, 201)
	return w
}

// push pushes an image, and waits until its webhook has come.
func (w *watched) push(t *testing.T) {
	t.Helper()
	w.Registry(t, w.Admin(t)).PushImage(t, "library/app", "1.0", berthtest.NewImage(2, 100_000))
	select {
	case <-w.hook:
	case <-time.After(30 * time.Second):
		t.Fatal("the webhook of the push did not come")
	}
}

// scrape reads the metrics as Prometheus would.
func (w *watched) scrape(t *testing.T) string {
	t.Helper()
	code, body := get(t, http.DefaultClient, "http://"+w.metrics+"/metrics")
	if code != http.StatusOK {
		t.Fatalf("%d %s", code, body)
	}
	return body
}

func get(t *testing.T, c *http.Client, url string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// until polls for something that comes by itself.
func until(t *testing.T, what string, ready func() bool) {
	t.Helper()
	for end := time.Now().Add(40 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if ready() {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s did not come", what)
		}
	}
}

// busyPort is a port that somebody has.
func busyPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

func decode[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %.500s", err, text)
	}
	return v
}

// One push is one trace, through all services, and has no secrets in it.
func TestOnePushIsOneTrace(t *testing.T) {
	t.Parallel()
	w := watch(t)
	sh := berthtest.NewShell(t, "SSL_CERT_FILE="+w.CAFile())
	crane, layout, image := berthtest.Tool(t, "crane"), filepath.Join(sh.Dir, "layout"), berthtest.NewImage(2, 100_000)
	berthtest.WriteLayout(t, layout, "1.0", image.Manifest, image)
	admin := w.Admin(t)
	sh.Input(t, admin.Password, crane, "auth", "login", w.Addr, "-u", admin.User, "--password-stdin")
	sh.Run(t, crane, "push", layout, w.Addr+"/library/app:1.0")
	byTrace := func(list []tracetest.Span) map[string][]tracetest.Span {
		m := map[string][]tracetest.Span{}
		for _, s := range list {
			m[s.Trace] = append(m[s.Trace], s)
		}
		return m
	}
	wanted := []string{"proxy GET token", "token GET /service/token", "token authenticate", "token sign", "proxy PUT upload", "registry upload", "registry write blob",
		"registry commit blob", "proxy PUT manifest", "registry manifest", "registry BATCH", "jobs event", "jobs write audit trail", "jobs deliver webhook"}
	var missing []string
	defer func() {
		if t.Failed() {
			for id, list := range byTrace(w.spans.Spans()) {
				for _, s := range list {
					t.Logf("%s %s>%s %s %s", id, s.Parent, s.ID, s.Service, s.Name)
				}
			}
			t.Logf("missing %q", missing)
		}
	}()
	until(t, "a trace of all services", func() bool {
		for _, list := range byTrace(w.spans.Spans()) {
			names := map[string]bool{}
			for _, s := range list {
				names[s.Service+" "+s.Name] = true
			}
			if !names["proxy PUT manifest"] {
				continue
			}
			missing = nil
			for _, name := range wanted {
				if !names[name] {
					missing = append(missing, name)
				}
			}
			return len(missing) == 0 && connected(t, list)
		}
		return false
	})
	if err := w.spans.Err(); err != nil {
		t.Error(err)
	}
	for what, secret := range map[string]string{"the administrator's password": w.AdminPassword(t), "a token": "eyJ", "a query": "service=harbor-registry", "a digest in a query": "digest="} {
		if strings.Contains(string(w.spans.Raw()), secret) {
			t.Errorf("spans have %s in them", what)
		}
	}
}

// connected reports whether a trace's spans hang together below one root.
func connected(t *testing.T, list []tracetest.Span) bool {
	t.Helper()
	ids, roots := map[string]bool{}, 0
	for _, s := range list {
		ids[s.ID] = true
	}
	for _, s := range list {
		switch {
		case s.Parent == "":
			roots++
		case !ids[s.Parent]:
			return false // its parent is still to come
		}
	}
	if roots > 1 {
		t.Errorf("%d roots", roots)
	}
	return roots == 1
}
