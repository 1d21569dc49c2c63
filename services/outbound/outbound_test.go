package outbound_test

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"berth/appliance/fault"
	"berth/appliance/secret"
	"berth/appliance/setting"
	"berth/appliance/webproxy"
	"berth/appliance/webproxy/webproxytest"
	"berth/services/outbound"
)

func machine(addresses ...string) func() ([]net.Addr, error) {
	return func() (all []net.Addr, err error) {
		for _, a := range addresses {
			ip, n, err := net.ParseCIDR(a)
			if err != nil {
				return nil, err
			}
			n.IP = ip
			all = append(all, n)
		}
		return all, nil
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	d := &outbound.Dialer{
		Allow:      []netip.Prefix{netip.MustParsePrefix("127.0.0.8/32"), netip.MustParsePrefix("169.254.7.0/24")},
		OwnPorts:   []uint16{443},
		Interfaces: machine("10.1.2.3/24", "2001:db8::5/64", "127.0.0.1/8"),
	}
	for address, want := range map[string]bool{
		"93.184.216.34": true, "10.0.0.1": true, "192.168.1.1": true, "172.16.0.1": true, "fd12:3456::1": true, "2606:4700::1": true, "100.64.0.1": true,
		"10.1.2.3": false, "2001:db8::5": false, "::ffff:10.1.2.3": false,
		"127.0.0.1": false, "127.1.2.3": false, "::1": false, "::ffff:127.0.0.1": false, "::127.0.0.1": false,
		"127.0.0.8": true, "::ffff:127.0.0.8": true, "169.254.7.7": true,
		"0.0.0.0": false, "0.1.2.3": false, "::": false,
		"169.254.169.254": false, "::ffff:169.254.169.254": false, "64:ff9b::a9fe:a9fe": false, "64:ff9b::7f00:1": false, "64:ff9b:1::7f00:1": false,
		"2002:7f00:1::": false, "2002:a9fe:a9fe::1": false, "2002:5db8:d822::1": true, "64:ff9b::5db8:d822": true,
		"fe80::1": false, "fe80::1%eth0": false, "fec0::1": false, "fd00:ec2::254": false, "100.100.100.200": false, "168.63.129.16": false, "192.0.0.192": false,
		"224.0.0.1": false, "ff02::1": false, "255.255.255.255": false, "240.0.0.1": false,
	} {
		err := d.Check(netip.AddrPortFrom(netip.MustParseAddr(address), 80))
		if (err == nil) != want || err != nil && !fault.Is(err, fault.Precondition) {
			t.Errorf("%s: %v", address, err)
		}
	}
	if err := d.Check(netip.MustParseAddrPort("10.1.2.3:443")); err != nil {
		t.Errorf("the front door: %v", err)
	}
}

// However loopback is spelt, and whatever resolves to it, a listener there is
// not reached.
func TestDialRefusesLoopback(t *testing.T) {
	t.Parallel()
	l, port := listener(t)
	defer l.Close()
	d := &outbound.Dialer{}
	for _, host := range []string{"127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "0", "0.0.0.0", "[::]", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]"} {
		c, err := d.DialContext(t.Context(), "tcp", host+":"+port)
		if err == nil {
			c.Close()
			t.Errorf("%s: connected", host)
		}
	}
	for _, network := range []string{"unix", "udp", "ip4:icmp"} {
		if _, err := d.DialContext(t.Context(), network, "/run/x.sock"); !fault.Is(err, fault.Precondition) {
			t.Errorf("%s: %v", network, err)
		}
	}
	d.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	c, err := d.DialContext(t.Context(), "tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatalf("allowed: %v", err)
	}
	c.Close()
}

func listener(t testing.TB) (net.Listener, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l, strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// A name server that gives a harmless address first and loopback the second
// time: what counts is the address that is connected to.
func TestRebinding(t *testing.T) {
	t.Parallel()
	l, port := listener(t)
	defer l.Close()
	dns, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer dns.Close()
	go answerLoopback(dns)
	d := &outbound.Dialer{Resolver: &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", dns.LocalAddr().String())
	}}}
	_, err = d.DialContext(t.Context(), "tcp4", "rebind.example.com:"+port)
	if !fault.Is(err, fault.Precondition) || !strings.Contains(err.Error(), "127.0.0.1 is this machine itself") {
		t.Errorf("%v", err)
	}
	client, err := d.Client(outbound.Options{Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.Get("http://rebind.example.com:" + port)
	if f, ok := errors.AsType[*fault.Error](err); !ok || f.Hint == "" {
		t.Errorf("%v", err)
	}
}

// answerLoopback is a name server for which every name is 127.0.0.1.
func answerLoopback(c net.PacketConn) {
	buf := make([]byte, 512)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil || n < 12 {
			return
		}
		end := 12
		for buf[end] != 0 {
			end += int(buf[end]) + 1
		}
		end += 5
		answer := append([]byte{buf[0], buf[1], 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0}, buf[12:end]...)
		answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1)
		if buf[end-3] != 1 { // AAAA: none
			answer = append([]byte{buf[0], buf[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, buf[12:end]...)
		}
		if _, err := c.WriteTo(answer, from); err != nil {
			return
		}
	}
}

func TestClient(t *testing.T) {
	t.Parallel()
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/inside" {
			http.Redirect(w, r, "http://localhost:1/metadata", http.StatusFound)
			return
		}
		if r.URL.Path == "/once" {
			http.Redirect(w, r, "/", http.StatusFound)
			return
		}
		io.WriteString(w, "hello")
	}))
	defer secure.Close()
	d := &outbound.Dialer{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}
	get := func(o outbound.Options, path string) (string, error) {
		o.Timeout = 5 * time.Second
		c, err := d.Client(o)
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseIdleConnections()
		res, err := c.Get(secure.URL + path)
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		return strconv.Itoa(res.StatusCode) + " " + string(b[:min(len(b), 5)]), err
	}
	roots := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
	if _, err := get(outbound.Options{}, ""); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("unknown authority: %v", err)
	}
	for _, o := range []outbound.Options{{SkipVerify: true}, {Roots: roots}} {
		if got, err := get(o, ""); got != "200 hello" {
			t.Errorf("%q, %v", got, err)
		}
	}
	if got, err := get(outbound.Options{Roots: roots}, "/once"); !strings.HasPrefix(got, "302") {
		t.Errorf("no redirects: %q, %v", got, err)
	}
	if got, err := get(outbound.Options{Roots: roots, Redirects: 1}, "/once"); got != "200 hello" {
		t.Errorf("one redirect: %q, %v", got, err)
	}
	d.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	if _, err := d.Client(outbound.Options{Roots: []byte("none")}); !fault.Is(err, fault.Invalid) {
		t.Errorf("bad roots: %v", err)
	}
}

// A redirect does not lead to where a direct request would not.
func TestRedirectInside(t *testing.T) {
	t.Parallel()
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("reached") }))
	defer inside.Close()
	u, _ := url.Parse(inside.URL)
	outside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://127.0.0.2:"+u.Port(), http.StatusTemporaryRedirect)
	}))
	defer outside.Close()
	d := &outbound.Dialer{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}
	c, err := d.Client(outbound.Options{Timeout: 5 * time.Second, Redirects: 5})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Post(outside.URL, "text/plain", strings.NewReader("x"))
	if f, ok := errors.AsType[*fault.Error](err); !ok || f.Kind != fault.Precondition {
		t.Errorf("%v", err)
	}
}

// nameless is a resolver that knows no names, as behind many proxies.
func nameless() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("no name server")
	}}
}

// HTTP goes through the proxy, with its password; https by CONNECT, so that the target's certificate is looked at here.
func TestProxy(t *testing.T) {
	t.Parallel()
	web := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Proxy-Authorization") != "" {
			t.Error("the target was told the proxy's password")
		}
		io.WriteString(w, "hello")
	})
	plain, secure := httptest.NewServer(web), httptest.NewTLSServer(web)
	defer plain.Close()
	defer secure.Close()
	p := webproxytest.Start(t, map[string]string{"example.com": plain.Listener.Addr().String(), "example.com:443": secure.Listener.Addr().String()})
	roots := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
	settings := setting.Proxy{HTTP: p.URL, Username: webproxytest.Username}
	nowhere := setting.Proxy{HTTP: "http://127.0.0.1:1"}
	secured := setting.Proxy{HTTP: secure.URL, Username: webproxytest.Username}
	for name, c := range map[string]struct {
		proxy    setting.Proxy
		password secret.Text
		target   string
		options  outbound.Options
		kind     fault.Kind
		words    string // "" is for success
	}{
		"http":                {settings, webproxytest.Password, "http://example.com/x", outbound.Options{}, 0, ""},
		"https":               {settings, webproxytest.Password, "https://example.com/x", outbound.Options{Roots: roots}, 0, ""},
		"any certificate":     {settings, webproxytest.Password, "https://example.com/x", outbound.Options{SkipVerify: true}, 0, ""},
		"unknown authority":   {settings, webproxytest.Password, "https://example.com/x", outbound.Options{}, fault.Internal, "through the proxy " + p.Listener.Addr().String() + ": tls:"},
		"wrong, http":         {settings, "wrong-9Q", "http://example.com/x", outbound.Options{}, fault.Precondition, "the proxy " + p.Listener.Addr().String() + " does not accept"},
		"wrong, https":        {settings, "wrong-9Q", "https://example.com/x", outbound.Options{}, fault.Precondition, "the proxy " + p.Listener.Addr().String() + " does not accept"},
		"forbidden":           {settings, webproxytest.Password, "https://forbidden.example.com/x", outbound.Options{}, fault.Precondition, "does not allow connections to forbidden.example.com"},
		"away":                {settings, webproxytest.Password, "https://away.example.com/x", outbound.Options{}, fault.Unavailable, "cannot reach away.example.com"},
		"no proxy":            {nowhere, "", "http://example.com/x", outbound.Options{}, fault.Unavailable, "the proxy 127.0.0.1:1 cannot be connected to"},
		"a proxy unknown":     {secured, webproxytest.Password, "http://example.com/x", outbound.Options{SkipVerify: true, Roots: roots}, fault.Precondition, "the certificate of the proxy"},
		"a proxy unknown, CA": {secured, webproxytest.Password, "https://example.com/x", outbound.Options{SkipVerify: true, Roots: roots}, fault.Precondition, "the certificate of the proxy"},
	} {
		t.Run(name, func(t *testing.T) {
			c.options.Timeout = 5 * time.Second
			d := &outbound.Dialer{Proxy: webproxy.Choose(c.proxy, c.password), Resolver: nameless()}
			client, err := d.Client(c.options)
			if err != nil {
				t.Fatal(err)
			}
			defer client.CloseIdleConnections()
			res, err := client.Get(c.target)
			if err == nil {
				defer res.Body.Close()
				if b, err := io.ReadAll(res.Body); c.words != "" || string(b) != "hello" {
					t.Errorf("%q, %v", b, err)
				}
				return
			}
			if c.words == "" || !strings.Contains(err.Error(), c.words) || fault.Of(err).Kind != c.kind {
				t.Errorf("%v", err)
			}
			for _, password := range []string{webproxytest.Password, "p%40ss", "wrong-9Q"} {
				if strings.Contains(err.Error(), password) {
					t.Errorf("the password is in: %v", err)
				}
			}
		})
	}
	if got := p.Asked(); !slices.Contains(got, "GET example.com") || !slices.Contains(got, "CONNECT example.com:443") {
		t.Errorf("asked for %q", got)
	}
}

// Behind a proxy, targets that this machine can see through are refused all the same; what is excepted is connected to
// from here, by the rules for that.
func TestProxyTargets(t *testing.T) {
	t.Parallel()
	dns, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer dns.Close()
	go answerLoopback(dns)
	here := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", dns.LocalAddr().String())
	}}
	web := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer web.Close()
	at := web.Listener.Addr().String()
	port := at[strings.LastIndexByte(at, ':')+1:]
	p := webproxytest.Start(t, map[string]string{"10.9.8.7": at, "example.com": at, "10.1.2.3": at})
	choose := webproxy.Choose(setting.Proxy{HTTP: p.URL, Username: webproxytest.Username, NoProxy: []string{".inside.example"}}, webproxytest.Password)
	own := machine("10.1.2.3/24", "127.0.0.1/8")
	for _, c := range []struct {
		resolver *net.Resolver
		allow    string
		target   string
		want     string // "proxy", "direct", or a part of the refusal
	}{
		{nameless(), "", "http://10.9.8.7/x", "proxy"},
		{nameless(), "", "http://example.com/x", "proxy"},
		{nameless(), "", "http://10.1.2.3/x", "proxy"}, // our own front door
		{nameless(), "", "http://10.1.2.3:5480/x", "this machine itself"},
		{here, "", "http://example.com/x", "127.0.0.1 is this machine itself"},
		{here, "", "http://a.inside.example:" + port, "127.0.0.1 is this machine itself"},
		{here, "127.0.0.1/32", "http://a.inside.example:" + port, "direct"},
		{here, "127.0.0.1/32", "http://127.0.0.1:" + port, "direct"},
		{nameless(), "", "http://169.254.169.254/latest", "metadata"},
		{nameless(), "", "http://127.0.0.1:9/", "this machine itself"},
		{nameless(), "", "http://[::ffff:127.0.0.1]:9/", "this machine itself"},
		{nameless(), "", "http://[64:ff9b::7f00:1]:9/", "this machine itself"},
		{nameless(), "", "http://127.1/", "unusual spelling"},
		{nameless(), "", "http://2130706433/", "unusual spelling"},
		{nameless(), "", "http://0X7F.1/", "unusual spelling"},
		{nameless(), "", "http://a.0x/", "unusual spelling"},
		{nameless(), "", "http://169.254.169.254./", "unusual spelling"},
		{nameless(), "", "http://0251.0376.0251.0376/", "unusual spelling"},
		{nameless(), "", "http://１６９.２５４.１６９.２５４/", "metadata"}, // net/http sends ASCII
		{nameless(), "", "http://169。254。169。254/", "metadata"},
		{nameless(), "", "https://169。254。169。254/", "metadata"},
		{nameless(), "", "http://①②⑦.1/", "unusual spelling"},
	} {
		d := &outbound.Dialer{Proxy: choose, Resolver: c.resolver, OwnPorts: []uint16{80}, Interfaces: own}
		if c.allow != "" {
			d.Allow = []netip.Prefix{netip.MustParsePrefix(c.allow)}
		}
		client, err := d.Client(outbound.Options{Timeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		before := len(p.Asked())
		res, err := client.Get(c.target)
		asked := len(p.Asked()) > before
		switch {
		case err == nil:
			res.Body.Close()
			if res.StatusCode != 200 || (c.want == "proxy") != asked || (c.want == "direct") == asked {
				t.Errorf("%s: %s, asked %t, want %s", c.target, res.Status, asked, c.want)
			}
		case asked || !fault.Is(err, fault.Precondition) || !strings.Contains(err.Error(), c.want):
			t.Errorf("%s: %v, asked %t", c.target, err, asked)
		}
		client.CloseIdleConnections()
	}
}

// A name server that says nothing, as behind many proxies, does not use up the time that a request has.
func TestProxyWithoutNames(t *testing.T) {
	t.Parallel()
	dns, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer dns.Close()
	web := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer web.Close()
	p := webproxytest.Start(t, map[string]string{"example.com": web.Listener.Addr().String()})
	d := &outbound.Dialer{Proxy: webproxy.Choose(setting.Proxy{HTTP: p.URL, Username: webproxytest.Username}, webproxytest.Password),
		Resolver: &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "udp", dns.LocalAddr().String())
		}}}
	client, err := d.Client(outbound.Options{Timeout: 5 * time.Second}) // a webhook's
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	res, err := client.Get("http://example.com/")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 200 {
		t.Error(res.Status)
	}
}

func TestCheckURL(t *testing.T) {
	t.Parallel()
	for text, ok := range map[string]bool{
		"http://a": true, "https://a.b:8443/x?y=z": true, "http://127.0.0.1:9/": true, "https://[::1]/": true,
		"": false, "a": false, "/x": false, "ftp://a": false, "file:///etc/passwd": false, "unix:///run/x": false, "http://": false, "http://:80": false,
		"http://u:p@a/": false, "http://a b": false, "http://a\n": false, "gopher://a": false, "http://%zz": false,
	} {
		if _, err := outbound.CheckURL(text); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzDial(f *testing.F) {
	for _, s := range []string{"127.0.0.1", "localhost", "0x7f.1", "::ffff:127.0.0.1", "0", "[::1]", "::", "127.1", "2130706433", "::1%lo"} {
		f.Add(s)
	}
	l, port := listener(f)
	f.Cleanup(func() { l.Close() })
	// No name server: what is left are the spellings and the hosts file.
	d := &outbound.Dialer{Resolver: nameless()}
	f.Fuzz(func(t *testing.T, host string) {
		if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil && d.Check(netip.AddrPortFrom(a, 1)) == nil {
			return // somebody else's; a test does not go there
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, port)); err == nil {
			defer c.Close()
			t.Errorf("%q: connected to %v", host, c.RemoteAddr())
		}
	})
}

// Whatever hosts are called, the proxy is not asked for an address that is refused, in any spelling that a program may
// read: as C's inet_aton does.
func FuzzProxy(f *testing.F) {
	for _, s := range []string{"127.0.0.1", "0x7f.1", "0251.0376.0251.0376", "１６９.254.169.254", "169。254。169。254.", "[::ffff:a9fe:a9fe]", "2852039166", "a%2e1", "xn--169"} {
		f.Add(s)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	d := &outbound.Dialer{Resolver: nameless()}
	asked := make(chan string, 1)
	proxy := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked <- r.Host + " " + r.URL.Host })}
	go proxy.Serve(l)
	f.Cleanup(func() { proxy.Close() })
	at := &url.URL{Scheme: "http", Host: l.Addr().String()}
	d.Proxy = func(*http.Request) (*url.URL, error) { return at, nil } // loopback, too
	client, err := d.Client(outbound.Options{Timeout: 5 * time.Second})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, host string) {
		u, err := outbound.CheckURL("http://" + host + "/")
		if err != nil {
			return
		}
		res, err := client.Get(u.String())
		if err != nil {
			return
		}
		res.Body.Close()
		for name := range strings.FieldsSeq(<-asked) {
			if a, ok := inetAton((&url.URL{Host: name}).Hostname()); ok {
				if err := d.Check(netip.AddrPortFrom(a, 80)); err != nil {
					t.Errorf("%q: the proxy was asked for %q: %v", host, name, err)
				}
			}
		}
	})
}

// inetAton reads an address as C does: one to four numbers, decimal, octal or hexadecimal, of which the last fills the rest.
func inetAton(s string) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(s); err == nil {
		return a, true
	}
	parts := strings.Split(strings.TrimSuffix(s, "."), ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var v uint64
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 0, 32)
		if err != nil || strings.ContainsAny(part, "_boBO+") {
			return netip.Addr{}, false
		}
		if i < len(parts)-1 {
			v |= n & 0xff << (24 - 8*i)
			continue
		}
		v |= n
	}
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}), true
}

func FuzzCheckURL(f *testing.F) {
	f.Add("http://a:1/x")
	f.Add("https://[::1]:443?q")
	f.Fuzz(func(t *testing.T, s string) {
		if u, err := outbound.CheckURL(s); err == nil {
			if _, err := http.NewRequest("POST", u.String(), nil); err != nil {
				t.Errorf("%q: %v", s, err)
			}
		}
	})
}
