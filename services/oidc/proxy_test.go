package oidc

import (
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"berth/appliance/fault"
	"berth/appliance/secret"
	"berth/appliance/setting"
	"berth/appliance/webproxy"
	"berth/appliance/webproxy/webproxytest"
	"berth/services/outbound"
)

// A provider outside is asked through the proxy, inside TLS, which its own authority vouches for.
func TestProxy(t *testing.T) {
	t.Parallel()
	const issuer = "https://example.com"
	provider := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Proxy-Authorization") != "" {
			t.Error("the provider was told the proxy's password")
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"issuer":"`+issuer+`","authorization_endpoint":"`+issuer+`/auth","token_endpoint":"`+issuer+`/token","jwks_uri":"`+issuer+`/keys"}`)
	}))
	defer provider.Close()
	p := webproxytest.Start(t, map[string]string{"example.com:443": provider.Listener.Addr().String()})
	at := p.Listener.Addr().String()
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: provider.Certificate().Raw}))
	for name, c := range map[string]struct {
		password secret.Text
		ca       string
		endpoint string
		words    string // "" is for success
	}{
		"through it":        {webproxytest.Password, ca, issuer, ""},
		"wrong password":    {"wrong-9Q", ca, issuer, "the proxy " + at + " does not accept the user name and the password"},
		"unknown authority": {webproxytest.Password, "", issuer, "the provider's certificate is signed by an authority that is not trusted"},
		"forbidden":         {webproxytest.Password, ca, "https://forbidden.example.com", "the proxy " + at + " does not allow connections to forbidden.example.com"},
		"away":              {webproxytest.Password, ca, "https://away.example.com", "the proxy " + at + " works, and cannot reach away.example.com"},
	} {
		d := &outbound.Dialer{Proxy: webproxy.Choose(setting.Proxy{HTTP: p.URL, Username: webproxytest.Username}, c.password)}
		err := Ping(t.Context(), Settings{Endpoint: c.endpoint, ClientID: "berth", Verify: true, CA: c.ca}, d)
		if c.words == "" && err == nil {
			continue
		}
		if c.words == "" || err == nil || !strings.HasPrefix(fault.Of(err).Text, c.words) || strings.Contains(err.Error(), "wrong-9Q") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !slices.Contains(p.Asked(), "CONNECT example.com:443") {
		t.Errorf("the proxy was asked for %q", p.Asked())
	}
}
