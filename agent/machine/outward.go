package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"berth/agent/api"
	"berth/appliance/durable"
	"berth/appliance/fault"
	"berth/appliance/secret"
	"berth/appliance/setting"
	"berth/appliance/webproxy"
)

// Proxy is the proxy for outgoing connections, without its password.
func (m *Machine) Proxy(context.Context) (api.Proxy, error) {
	s, err := m.Settings()
	if err != nil {
		return api.Proxy{}, broken(err)
	}
	p := api.Proxy{Proxy: s.Proxy}
	p.NoProxy = some(p.NoProxy)
	password, err := webproxy.Password(m.path(setting.SecretFile(setting.ProxyPassword)))
	p.HasPassword = password != ""
	return p, err
}

// SetProxy changes the proxy. What goes through it is restarted, also for another
// password alone.
func (m *Machine) SetProxy(ctx context.Context, p api.Proxy) (api.Proxy, error) {
	password := secret.Text("")
	if p.Password != nil {
		password = secret.Text(*p.Password)
	}
	if len(password) > 1024 || strings.ContainsFunc(password.Reveal(), func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return api.Proxy{}, fault.New(fault.Invalid, "it has control characters, or more than 1024").On("password")
	}
	renewed := false
	var now setting.Settings
	done, err := m.change(ctx, func(s *setting.Settings) error {
		s.Proxy, now = p.Proxy, *s
		if err := s.Check(); err != nil || p.Password == nil {
			return err
		}
		file := m.path(setting.SecretFile(setting.ProxyPassword))
		old, err := webproxy.Password(file)
		if err != nil {
			return err
		}
		if renewed = password != old; !renewed {
			return nil
		}
		if password == "" {
			if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil
		}
		return durable.WriteFile(file, []byte(password.Reveal()+"\n"), 0o600)
	})
	if changed := []api.Change{{Field: "proxy.password"}}; err == nil && renewed && len(done.Changes) == 0 {
		err = m.restart(ctx, restarts(changed, now))
	}
	if err != nil {
		return api.Proxy{}, err
	}
	return m.Proxy(ctx)
}

// outwardTime is how long a test of a connection may take.
const outwardTime = 15 * time.Second

// TestProxy tries to reach a URL through the proxy: the one that is set, or another.
func (m *Machine) TestProxy(ctx context.Context, t api.ProxyTest) (api.Tested, error) {
	s, err := m.Settings()
	if err != nil {
		return api.Tested{}, broken(err)
	}
	password, err := webproxy.Password(m.path(setting.SecretFile(setting.ProxyPassword)))
	if err != nil {
		return api.Tested{}, err
	}
	if t.Proxy != nil {
		s.Proxy = t.Proxy.Proxy
		if t.Proxy.Password != nil {
			password = secret.Text(*t.Proxy.Password)
		}
		if err := s.Check(); err != nil {
			return api.Tested{}, err
		}
	}
	r, err := webproxy.Test(ctx, s.Proxy, password, t.URL, nil)
	if fault.Is(err, fault.Invalid) {
		return api.Tested{}, err
	}
	if err != nil {
		f := fault.Of(err)
		return api.Tested{Text: f.Text, Hint: f.Hint}, nil
	}
	return api.Tested{OK: true, Text: fmt.Sprintf("%s, after %d ms", r.Text, r.Took.Milliseconds())}, nil
}

// collectorsDir has the authorities of collectors that were given as text. The log
// service reads them.
const collectorsDir = "/etc/berth/collectors"

// Syslog are the collectors of log messages, and how they get on.
func (m *Machine) Syslog(ctx context.Context) (api.Syslog, error) {
	s, err := m.Settings()
	if err != nil {
		return api.Syslog{}, broken(err)
	}
	w := api.Syslog{Forward: []api.Collector{}}
	for _, f := range s.Logs.Forward {
		c := api.Collector{Forward: f}
		if f.CA == m.caFile(f.Name) {
			if b, err := os.ReadFile(m.below(f.CA)); err == nil {
				c.CACertificate = string(b)
			}
		}
		w.Forward = append(w.Forward, c)
	}
	// That the log service is away is its own check's business.
	_ = m.askLogs(ctx, s, http.MethodGet, "/v1/collectors", &w.Now)
	return w, nil
}

func (m *Machine) caFile(name string) string { return filepath.Join(collectorsDir, name+".crt") }

// SetSyslog changes the collectors. Messages go on to be kept for those that stay.
func (m *Machine) SetSyslog(ctx context.Context, in api.Syslog) (api.Syslog, error) {
	_, err := m.change(ctx, func(s *setting.Settings) error {
		s.Logs.Forward = nil
		for _, c := range in.Forward {
			if c.CACertificate != "" {
				c.Forward.CA = m.caFile(c.Name)
			}
			s.Logs.Forward = append(s.Logs.Forward, c.Forward)
		}
		if err := s.Check(); err != nil {
			return err
		}
		return m.writeAuthorities(in.Forward)
	})
	if err != nil {
		return api.Syslog{}, err
	}
	m.dropAuthorities(in.Forward)
	return m.Syslog(ctx)
}

// dropAuthorities removes those of collectors that are gone, or trust the system's.
func (m *Machine) dropAuthorities(list []api.Collector) {
	files, err := filepath.Glob(m.path(collectorsDir, "*.crt"))
	for _, f := range files {
		used := func(c api.Collector) bool {
			return f == m.path(c.CA) || c.CACertificate != "" && f == m.path(m.caFile(c.Name))
		}
		if !slices.ContainsFunc(list, used) {
			err = errors.Join(err, os.Remove(f))
		}
	}
	if err != nil {
		m.o.Log.Warn("cannot remove authorities of collectors", "err", err)
	}
}

// writeAuthorities keeps the collectors' authorities, whose names were checked.
func (m *Machine) writeAuthorities(list []api.Collector) error {
	for _, c := range list {
		if c.CACertificate == "" {
			continue
		}
		text, err := repairAuthority(c.CACertificate)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(m.path(collectorsDir), 0o755); err != nil {
			return err
		}
		if err := os.Chmod(m.path(collectorsDir), 0o755); err != nil {
			return err
		}
		if err := durable.WriteFile(m.path(m.caFile(c.Name)), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// TestSyslog sends a test message to a collector.
func (m *Machine) TestSyslog(ctx context.Context, name string) (api.Tested, error) {
	s, err := m.Settings()
	if err != nil {
		return api.Tested{}, broken(err)
	}
	if !slices.ContainsFunc(s.Logs.Forward, func(f setting.Forward) bool { return f.Name == name }) {
		return api.Tested{}, fault.New(fault.NotFound, "there is no collector %.64q", name).On("name")
	}
	var answer struct{ Answer string }
	err = m.askLogs(ctx, s, http.MethodPost, "/v1/collectors/"+url.PathEscape(name)+"/test", &answer)
	if err != nil {
		f := fault.Of(err)
		return api.Tested{Text: f.Text, Hint: f.Hint}, nil
	}
	return api.Tested{OK: true, Text: answer.Answer}, nil
}

// askLogs asks the log service over its socket.
func (m *Machine) askLogs(ctx context.Context, s setting.Settings, method, path string, out any) error {
	ctx, cancel := context.WithTimeout(ctx, outwardTime)
	defer cancel()
	resp, err := m.over(ctx, s.Socket("logs"), method, path)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "the log service does not answer").WithHint("see whether berth-logs runs")
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "cannot read the log service's answer")
	}
	if resp.StatusCode != http.StatusOK {
		var w struct {
			Errors []struct{ Message, Hint string }
		}
		if json.Unmarshal(b, &w) == nil && len(w.Errors) > 0 {
			return fault.New(fault.Unavailable, "%s", w.Errors[0].Message).WithHint("%s", w.Errors[0].Hint)
		}
		return fault.New(fault.Unavailable, "the log service answers %s", resp.Status)
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fault.Wrap(fault.Unavailable, err, "cannot read the log service's answer")
	}
	return nil
}

// over makes a request over a unix socket of a service.
func (m *Machine) over(ctx context.Context, socket, method, path string) (*http.Response, error) {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", m.below(socket))
	}}
	r, err := http.NewRequestWithContext(ctx, method, "http://service"+path, nil)
	if err != nil {
		return nil, err
	}
	return transport.RoundTrip(r)
}
