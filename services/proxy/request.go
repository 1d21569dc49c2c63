package proxy

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
)

// refuse answers in the form of the OCI Distribution Specification, which
// Harbor's API shares.
func refuse(w http.ResponseWriter, status int, code, message string) {
	type fault struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	b, err := json.Marshal(map[string][]fault{"errors": {{code, message}}})
	if err != nil {
		panic(err) // two strings
	}
	h := w.Header()
	h["Content-Type"] = []string{"application/json"}
	h["Content-Length"] = []string{strconv.Itoa(len(b))}
	w.WriteHeader(status)
	_, _ = w.Write(b) // the client may be gone
}

// unclean reports whether a path has a NUL or a ".." segment, once or twice
// percent-encoded (core decodes repository names twice, as Harbor does), or path
// or query are no text. No honest client sends that; whoever reads them behind
// us is spared it.
func unclean(r *http.Request) bool {
	path := r.URL.Path
	if dotted(path) || path != "" && path[0] != '/' || !utf8.ValidString(path) || unreadable(r.URL.RawQuery) {
		return true
	}
	if strings.IndexByte(path, '%') < 0 {
		return false
	}
	again, err := url.PathUnescape(path)
	return err == nil && dotted(again)
}

// unreadable reports whether a query has what no text in PostgreSQL can have.
func unreadable(query string) bool {
	if strings.IndexByte(query, '%') < 0 {
		return !utf8.ValidString(query)
	}
	text, err := url.QueryUnescape(query)
	return err == nil && (strings.IndexByte(text, 0) >= 0 || !utf8.ValidString(text))
}

func dotted(path string) bool {
	if strings.IndexByte(path, 0) >= 0 {
		return true
	}
	for i := 0; ; i++ {
		at := strings.Index(path[i:], "..")
		if at < 0 {
			return false
		}
		i += at
		starts := i == 0 || path[i-1] == '/'
		ends := i+2 == len(path) || path[i+2] == '/'
		if starts && ends {
			return true
		}
	}
}

// identify settles who is calling from where, and the request's id. After it,
// r.RemoteAddr and X-Forwarded-* say the same, and can be believed.
func (d *Door) identify(x *exchange, r *http.Request) (id []string) {
	peer, _ := netip.ParseAddrPort(r.RemoteAddr)
	client, proto := peer.Addr().Unmap(), "http"
	if r.TLS != nil {
		proto = "https"
	}
	if d.trusted(client) {
		client, proto = d.forwarded(r, client, proto)
		if client != peer.Addr().Unmap() {
			r.RemoteAddr = netip.AddrPortFrom(client, 0).String()
		}
	}
	x.client = client
	id = r.Header["X-Request-Id"]
	if len(id) != 1 || !saneID(id[0]) {
		id = []string{uuid.NewString()}
	}
	for name := range r.Header {
		if strings.HasPrefix(name, "X-Forwarded-") || strings.HasPrefix(name, "X-Berth-") || name == "X-Real-Ip" || name == "Forwarded" {
			delete(r.Header, name)
		}
	}
	values := &[3]string{client.String(), proto, r.Host} // one allocation for all
	r.Header["X-Forwarded-For"] = values[0:1:1]
	r.Header["X-Forwarded-Proto"] = values[1:2:2]
	r.Header["X-Forwarded-Host"] = values[2:3:3]
	r.Header["X-Request-Id"] = id
	return id
}

func (d *Door) trusted(a netip.Addr) bool {
	for _, p := range d.options.TrustedProxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// forwarded believes a trusted proxy: the client is the last address in
// X-Forwarded-For that is not a trusted proxy's own. All before it could be
// the client's invention.
func (d *Door) forwarded(r *http.Request, client netip.Addr, proto string) (netip.Addr, string) {
	if p := r.Header.Get("X-Forwarded-Proto"); p == "http" || p == "https" {
		proto = p
	}
	if h := r.Header.Get("X-Forwarded-Host"); h != "" && strings.Trim(h, hostCharacters+"[]") == "" {
		r.Host = h
	}
	hops := strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		a, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		if client = a.Unmap(); !d.trusted(client) {
			break
		}
	}
	return client, proto
}

// saneID accepts the request id of a client that has its own: it goes into
// logs and headers as it is.
func saneID(id string) bool {
	if id == "" || len(id) > 64 {
		return false
	}
	for i := range len(id) {
		c := id[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}
