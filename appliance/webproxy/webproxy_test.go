package webproxy_test

import (
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/appliance/fault"
	"berth/appliance/secret"
	"berth/appliance/setting"
	"berth/appliance/webproxy"
	"berth/appliance/webproxy/webproxytest"
)

const user, password = webproxytest.Username, webproxytest.Password

func TestTest(t *testing.T) {
	t.Parallel()
	web := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Proxy-Authorization") != "" {
			t.Error("the target was told the proxy's password")
		}
		w.WriteHeader(http.StatusTeapot)
	})
	plain, secure := httptest.NewServer(web), httptest.NewTLSServer(web)
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	p := webproxytest.Start(t, map[string]string{"example.com": plain.Listener.Addr().String(), "example.com:443": secure.Listener.Addr().String()})
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())
	all := setting.Proxy{HTTP: p.URL, Username: user}
	nobody := "http://127.0.0.1:1"
	for name, c := range map[string]struct {
		p        setting.Proxy
		password secret.Text
		target   string
		roots    *x509.CertPool
		kind     fault.Kind
		words    string
	}{
		"direct":            {setting.Proxy{}, "", plain.URL, nil, 0, "directly, without a proxy, and answered 418"},
		"direct TLS":        {setting.Proxy{}, "", secure.URL, roots, 0, "directly, without a proxy, and answered 418"},
		"through it":        {all, password, "http://example.com", nil, 0, "through the proxy"},
		"through it, TLS":   {all, password, "https://example.com/v2/", roots, 0, "through the proxy"},
		"it looks inside":   {all, password, "https://example.com/v2/", x509.NewCertPool(), fault.Precondition, "not signed by a CA"},
		"no password":       {setting.Proxy{HTTP: p.URL}, "", "https://registry.example.com", roots, fault.Precondition, "wants a user name"},
		"wrong password":    {all, "wrong", "https://registry.example.com", roots, fault.Precondition, "does not accept"},
		"wrong, plain":      {all, "wrong", "http://registry.example.com", roots, fault.Precondition, "does not accept"},
		"forbidden":         {all, password, "https://forbidden.example.com", roots, fault.Precondition, "does not allow connections to forbidden.example.com"},
		"target away":       {all, password, "https://away.example.com", roots, fault.Unavailable, "works, and cannot reach"},
		"target away, http": {all, password, "http://away.example.com", roots, fault.Unavailable, "works, and cannot reach"},
		"https has its own": {setting.Proxy{HTTP: nobody, HTTPS: p.URL, Username: user}, password, "https://away.example.com", roots, fault.Unavailable, "works, and cannot reach"},
		"no proxy there":    {setting.Proxy{HTTP: nobody}, "", "https://registry.example.com", roots, fault.Unavailable, "the proxy 127.0.0.1:1 cannot be connected to"},
		"proxy unknown":     {setting.Proxy{HTTP: secure.URL}, "", "https://registry.example.com", x509.NewCertPool(), fault.Precondition, "the proxy " + secure.Listener.Addr().String() + " is not signed by a CA"},
		"not a proxy":       {setting.Proxy{HTTP: strings.Replace(secure.URL, "https", "http", 1)}, "", "https://registry.example.com", roots, fault.Unavailable, "gives no usable answer"},
		"excepted":          {setting.Proxy{HTTP: p.URL, NoProxy: []string{".invalid"}}, "", "https://registry.invalid", roots, fault.Unavailable, "registry.invalid"},
		"unknown CA":        {setting.Proxy{}, "", secure.URL, x509.NewCertPool(), fault.Precondition, "not signed by a CA"},
		"no URL":            {setting.Proxy{}, "", "registry.example.com", roots, fault.Invalid, "http://HOST"},
		"a password in it":  {setting.Proxy{}, "", "https://a:b@registry.example.com", roots, fault.Invalid, "http://HOST"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := webproxy.Test(t.Context(), c.p, c.password, c.target, c.roots)
			if c.kind == 0 {
				if err != nil || !strings.Contains(r.Text, c.words) || r.Status != http.StatusTeapot {
					t.Errorf("%+v, %v", r, err)
				}
				return
			}
			if !fault.Is(err, c.kind) || !strings.Contains(fault.Of(err).Text, c.words) {
				t.Errorf("%v, want %q", err, c.words)
			}
			if err != nil && (strings.Contains(err.Error(), password) || strings.Contains(err.Error(), "wrong") || strings.Contains(err.Error(), "p%40ss")) {
				t.Errorf("the password is in: %v", err)
			}
		})
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	choose := webproxy.Choose(setting.Proxy{HTTP: "http://proxy.example.com:3128", Username: user, NoProxy: []string{"10.0.0.0/8", ".example.com", "192.0.2.1"}}, password)
	for target, through := range map[string]bool{"http://registry.example.org": true, "https://registry.example.org": true, "https://a.example.com": false,
		"http://10.1.2.3": false, "http://192.0.2.1": false, "http://192.0.2.2": true, "http://localhost": false, "http://127.0.0.1": false} {
		req, err := http.NewRequest("GET", target, nil)
		if err != nil {
			t.Fatal(err)
		}
		via, err := choose(req)
		if err != nil || (via != nil) != through {
			t.Errorf("%s: %v, %v", target, via, err)
		}
		if via != nil {
			if got, _ := via.User.Password(); got != password || via.User.Username() != user {
				t.Errorf("%s: as %v", target, via.User)
			}
		}
	}
}

func TestPassword(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "proxy-password")
	if p, err := webproxy.Password(path); p != "" || err != nil {
		t.Errorf("%q, %v", p.Reveal(), err)
	}
	if err := os.WriteFile(path, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := webproxy.Password(path); p != password || err != nil {
		t.Errorf("%q, %v", p.Reveal(), err)
	}
}
