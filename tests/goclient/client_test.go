// Package goclient drives Berth with goharbor/go-client, which Harbor's own
// command line and many programs are built on: every one of its operations, in
// the journeys that people make, against a running `berth up`.
package goclient

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"

	rtclient "github.com/go-openapi/runtime/client"
	harbor "github.com/goharbor/go-client/pkg/sdk/v2.0/client"

	"berth/tests/berthtest"
)

// world is a running Berth, as its administrator sees it.
type world struct {
	*testing.T
	*harbor.HarborAPI
	server *berthtest.Server
	admin  berthtest.Login
	calls  *calls
}

// calls notes what was asked for: method and path.
type calls struct {
	next http.RoundTripper
	sync.Mutex
	seen [][2]string
}

func (c *calls) RoundTrip(r *http.Request) (*http.Response, error) {
	c.Lock()
	c.seen = append(c.seen, [2]string{r.Method, r.URL.EscapedPath()})
	c.Unlock()
	return c.next.RoundTrip(r)
}

func start(t *testing.T) *world {
	t.Helper()
	// The target of webhooks is this test.
	config := filepath.Join(t.TempDir(), "berth.yaml")
	if err := os.WriteFile(config, []byte("allow_targets: [127.0.0.1]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := berthtest.Start(t, berthtest.Options{Args: []string{"--config", config}})
	w := &world{T: t, server: s, admin: s.Admin(t), calls: &calls{next: s.Client(t).Transport}}
	w.HarborAPI = w.as(w.admin)
	return w
}

// as is the client of somebody.
func (w *world) as(who berthtest.Login) *harbor.HarborAPI {
	u, err := url.Parse(w.server.URL + harbor.DefaultBasePath)
	if err != nil {
		w.Fatal(err)
	}
	c := harbor.Config{URL: u, Transport: w.calls}
	if who.User != "" {
		c.AuthInfo = rtclient.BasicAuth(who.User, who.Password)
	}
	return harbor.New(c)
}

// in is the world within a part of the test.
func (w *world) in(name string, f func(w *world)) {
	w.Run(name, func(t *testing.T) {
		part := *w
		part.T = t
		f(&part)
	})
}

// need stops the test if a call that must succeed did not.
func (w *world) need(err error) {
	w.Helper()
	if err != nil {
		w.Fatalf("refused: %v", err)
	}
}

// refused checks the status of a call that must fail.
func (w *world) refused(status int, err error) {
	w.Helper()
	if err == nil {
		w.Errorf("succeeded, want %d", status)
	} else if c, ok := err.(interface{ IsCode(int) bool }); !ok || !c.IsCode(status) {
		w.Errorf("%v, want %d", err, status)
	}
}

func pointer[T any](v T) *T { return &v }
