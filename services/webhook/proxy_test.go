package webhook_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"

	"berth/appliance/secret"
	"berth/appliance/setting"
	"berth/appliance/webproxy"
	"berth/appliance/webproxy/webproxytest"
	"berth/services/task"
	"berth/services/webhook"
)

// Where the administrator has set a proxy, deliveries go through it, by CONNECT to targets with TLS. When it does not let
// them, the execution says that it was the proxy, and what to do, without its password.
func TestProxy(t *testing.T) {
	t.Parallel()
	plain, fromPlain := target(t, false, 200)
	secure, fromSecure := target(t, true, 200)
	host := func(address string) string {
		u, err := url.Parse(address)
		check(t, err)
		return u.Host
	}
	p := webproxytest.Start(t, map[string]string{"hooks.example.com": host(plain), "hooks.example.com:443": host(secure)})
	behind := func(password secret.Text, at string) *bundle {
		b := setup(t)
		b.hooks.Dialer.Proxy = webproxy.Choose(setting.Proxy{HTTP: at, Username: webproxytest.Username}, password)
		b.hooks.Dialer.Resolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
			return nil, errors.New("only the proxy knows names")
		}}
		return b.run()
	}
	targets := []webhook.Target{{Type: "http", Address: "http://hooks.example.com/hook/s3cret"},
		{Type: "http", Address: "https://hooks.example.com/hook/s3cret", SkipCertVerify: true}}
	b := behind(webproxytest.Password, p.URL)
	id := b.policy(targets, "PUSH_ARTIFACT")
	b.happen(push())
	for _, got := range []chan received{fromPlain, fromSecure} {
		if r := wait(t, got); r.header.Get("Proxy-Authorization") != "" {
			t.Error("the target was told the proxy's password")
		}
	}
	_, _, log := b.ends(id, task.Success)
	if asked := p.Asked(); !slices.Contains(asked, "POST hooks.example.com") || !slices.Contains(asked, "CONNECT hooks.example.com:443") {
		t.Errorf("the proxy was asked for %q", asked)
	}
	for name, c := range map[string]struct {
		password secret.Text
		at       string
		tries    int // the proxy's own refusals are not repeated: accounts get locked by that
		words    string
	}{
		"wrong password": {"wrong-9Q", p.URL, 1, "the proxy " + host(p.URL) + " does not accept the user name and the password"},
		"no proxy there": {webproxytest.Password, "http://127.0.0.1:1", 3, "the proxy 127.0.0.1:1 cannot be connected to"},
	} {
		b := behind(c.password, c.at)
		id := b.policy(targets, "PUSH_ARTIFACT")
		b.happen(push())
		_, tasks, more := b.ends(id, task.Error)
		for _, task := range tasks {
			if !strings.HasPrefix(task.Message, c.words) || task.Attempts != c.tries {
				t.Errorf("%s: %d tries, %q", name, task.Attempts, task.Message)
			}
		}
		log += more
	}
	for _, word := range []string{webproxytest.Password, url.QueryEscape(webproxytest.Password), "p%40ss", "wrong-9Q", "s3cret"} {
		if strings.Contains(log, word) {
			t.Errorf("%q is in the log:\n%s", word, log)
		}
	}
}
