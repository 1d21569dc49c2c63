package command

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"berth/appliance/secret"
	"berth/appliance/setting"
	"berth/appliance/webproxy/webproxytest"
	"berth/services/trace/tracetest"
)

// The proxy's password is a credential of the unit, or a file with the keys; what it is for goes to the proxy alone.
func TestProxyPassword(t *testing.T) {
	s := settingsOf(t, "--data", t.TempDir())
	if find, err := proxyOf(s); find != nil || err != nil {
		t.Errorf("without a proxy: %v", err)
	}
	if err := prepareDirs(s); err != nil {
		t.Fatal(err)
	}
	s.Proxy = setting.Proxy{HTTP: "http://proxy.example.com:3128", Username: "berth"}
	said := func() string {
		t.Helper()
		find, err := proxyOf(s)
		if err != nil {
			t.Fatal(err)
		}
		d := (&node{settings: s, proxy: find}).dialer()
		r, err := http.NewRequest("GET", "https://example.com", nil)
		if err != nil {
			t.Fatal(err)
		}
		via, err := d.Proxy(r)
		if err != nil || via.Host != "proxy.example.com:3128" {
			t.Fatalf("%v", err)
		}
		password, _ := via.User.Password()
		return password
	}
	if got := said(); got != "" {
		t.Errorf("without a password it says %q", got)
	}
	write(t, filepath.Join(s.Keys(), setting.ProxyPassword), "of the file\n")
	if got := said(); got != "of the file" {
		t.Errorf("it says %q", got)
	}
	credentials := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", credentials)
	write(t, filepath.Join(credentials, setting.ProxyPassword), "of the unit\n")
	if got := said(); got != "of the unit" {
		t.Errorf("it says %q", got)
	}
	write(t, filepath.Join(credentials, setting.ProxyPassword), "\n") // the units' own, if there is no file
	if got := said(); got != "" {
		t.Errorf("with an empty credential it says %q", got)
	}
}

// Spans go through the proxy, too; if it does not let them, one line says why.
func TestSpansThroughProxy(t *testing.T) {
	c := tracetest.Start(t)
	p := webproxytest.Start(t, map[string]string{"collector.example.com:4318": strings.TrimPrefix(c.URL, "http://")})
	for password, words := range map[secret.Text]string{webproxytest.Password: "", "wrong-9Q": "the proxy " + p.Listener.Addr().String() + " does not accept"} {
		s := settingsOf(t, "--data", t.TempDir())
		if err := prepareDirs(s); err != nil {
			t.Fatal(err)
		}
		s.Traces, s.Metrics = "http://collector.example.com:4318", "off"
		s.Proxy = setting.Proxy{HTTP: p.URL, Username: webproxytest.Username}
		write(t, filepath.Join(s.Keys(), setting.ProxyPassword), password.Reveal())
		var log bytes.Buffer
		process := newProcess(io.Discard, s, "core")
		process.log = slog.New(slog.NewTextHandler(&log, nil))
		spans, err := process.openSpans(t.Context(), "core")
		if err != nil {
			t.Fatal(err)
		}
		_, span := spans.Tracer("core").Start(t.Context(), "test")
		span.End(nil)
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // what waits is sent at the end
		if err := spans.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if got := log.String(); (words == "") != (got == "") || !strings.Contains(got, words) || strings.Contains(got, "wrong-9Q") {
			t.Errorf("it logs %q", got)
		}
	}
	if list := c.Spans(); len(list) != 1 || list[0].Service != "core" {
		t.Errorf("%+v", list)
	}
	if e, err := newProcess(io.Discard, setting.Settings{Traces: "http://collector.example.com:4318"}, "logs").openSpans(t.Context(), "logs"); e != nil || err != nil {
		t.Errorf("the log service sends spans: %v", err)
	}
}
