// Package client asks the agent: over its unix socket, as root, which is what the
// command line and the screen on tty1 do; or over HTTPS, with a password.
//
// Every method is one request. An error that the agent gave is a *fault.Error, or
// several of them joined, with the agent's own words.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"berth/agent/api"
	"berth/appliance/fault"
	"berth/appliance/secret"
)

// Client asks one agent. It is for concurrent use.
type Client struct {
	http     *http.Client
	base     string
	user     string
	password secret.Text
}

// New makes a client for the agent's unix socket. Nothing is connected yet.
func New(socket string) *Client {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
		MaxIdleConns: 4, IdleConnTimeout: time.Minute,
	}
	return &Client{http: &http.Client{Transport: transport}, base: "http://agent" + api.Prefix}
}

// NewRemote makes a client for an appliance's console, https://HOST:5480. transport
// says which certificates are trusted; nil: those that the system trusts.
func NewRemote(console, user string, password secret.Text, transport http.RoundTripper) *Client {
	return &Client{http: &http.Client{Transport: transport}, base: strings.TrimRight(console, "/") + api.Prefix, user: user, password: password}
}

type behalfKey struct{}

// Behalf is for whom a program of root's asks: who is logged in at the console's
// pages.
type Behalf struct {
	User    string // admin, root, setup
	Address string // where from
	Over    string // the address of ours that the request came to
}

// For gives a context whose requests are made for somebody else. Only the agent's
// unix socket takes notice.
func For(ctx context.Context, b Behalf) context.Context {
	return context.WithValue(ctx, behalfKey{}, b)
}

// maxAnswer is how much of an answer is read.
const maxAnswer = 16 << 20

// call makes a request and decodes the answer into out (nil: it has none).
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	body, err := c.open(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer body.Close()
	if out == nil {
		return nil
	}
	if raw, ok := out.(*[]byte); ok {
		*raw, err = io.ReadAll(io.LimitReader(body, maxAnswer))
	} else {
		err = json.NewDecoder(io.LimitReader(body, maxAnswer)).Decode(out)
	}
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "cannot read the agent's answer")
	}
	return nil
}

// open makes a request and gives the body of a good answer.
func (c *Client) open(ctx context.Context, method, path string, in any) (io.ReadCloser, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, nil)
	if err != nil {
		return nil, err
	}
	if in != nil {
		b, isText := in.(string)
		raw := []byte(b)
		r.Header.Set("Content-Type", "application/yaml")
		if !isText {
			if raw, err = json.Marshal(in); err != nil {
				return nil, err
			}
			r.Header.Set("Content-Type", "application/json")
		}
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(raw)), int64(len(raw))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil }
	}
	if c.user != "" {
		r.SetBasicAuth(c.user, c.password.Reveal())
	}
	if b, ok := ctx.Value(behalfKey{}).(Behalf); ok {
		r.Header.Set("Berth-User", b.User)
		r.Header.Set("Berth-Address", b.Address)
		r.Header.Set("Berth-Over", b.Over)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // without the URL, which is nobody's business
		}
		return nil, fault.Wrap(fault.Unavailable, err, "the agent does not answer").
			WithHint("systemctl status berth-agent says whether it runs; only root may ask it")
	}
	if resp.StatusCode < 300 {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	return nil, refusal(resp)
}

// refusal reads an answer that is no success.
func refusal(resp *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var w api.Errors
	if json.Unmarshal(b, &w) != nil || len(w.Errors) == 0 {
		return fault.New(fault.Internal, "the agent answers %s", resp.Status)
	}
	all := make([]error, len(w.Errors))
	for i, e := range w.Errors {
		all[i] = fault.New(kind(e.Kind), "%s", e.Text).On(e.Field).WithHint("%s", e.Hint)
	}
	if len(all) == 1 {
		return all[0]
	}
	return errors.Join(all...)
}

// kind reads the name of a fault's kind.
func kind(name string) fault.Kind {
	for k := fault.Internal; k <= fault.Unsupported; k++ {
		if k.String() == name {
			return k
		}
	}
	return fault.Internal
}

func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	return send[T](ctx, c, http.MethodGet, path, nil)
}

func send[T any](ctx context.Context, c *Client, method, path string, in any) (T, error) {
	var out T
	err := c.call(ctx, method, path, in, &out)
	return out, err
}

// segment makes one segment of a path of a name.
func segment(format, name string) string { return fmt.Sprintf(format, url.PathEscape(name)) }
