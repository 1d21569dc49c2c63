// Package load is the client of the benchmark: workers with one keep-alive HTTP/1.1 connection each, content whose
// digest costs nothing to know, and the requests of the distribution protocol. All servers are driven by this code.
package load

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Client is one worker's connection to one server. It is not for concurrent use.
type Client struct {
	base  *url.URL
	auth  string // Authorization, for all requests
	http  *http.Client
	stuff []byte // to read answers into
}

// NewClient makes a client. Roots may be nil for plain HTTP.
func NewClient(base string, roots *x509.CertPool, auth string) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13},
		TLSNextProto:        map[string]func(string, *tls.Conn) http.RoundTripper{}, // HTTP/1.1
		MaxConnsPerHost:     1,
		MaxIdleConnsPerHost: 1,
		DisableCompression:  true,
		WriteBufferSize:     64 << 10,
		ReadBufferSize:      64 << 10,
	}
	return &Client{base: u, auth: auth, stuff: make([]byte, 256<<10), http: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// As gives a client on the same connection with another Authorization.
func (c *Client) As(auth string) *Client {
	other := *c
	other.auth = auth
	return &other
}

// Close ends the connection.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// A Reply is an answer without its body, which was read and counted.
type Reply struct {
	Header http.Header
	Bytes  int64
	Body   []byte // if it was asked for
}

// A Request is one request. Target is a path or a Location.
type Request struct {
	Method, Target string
	Type           string // Content-Type
	Accept         string
	Body           io.Reader
	Size           int64 // of Body; -1 = chunked
	Want           int   // the status
	Keep           bool  // the answer's body is wanted
}

// Do sends a request and reads the whole answer. Another status than the one wanted is an error.
func (c *Client) Do(ctx context.Context, q Request) (Reply, error) {
	u, err := c.base.Parse(q.Target)
	if err != nil {
		return Reply{}, err
	}
	r, err := http.NewRequestWithContext(ctx, q.Method, u.String(), q.Body)
	if err != nil {
		return Reply{}, err
	}
	if q.Body != nil {
		r.ContentLength = q.Size
	}
	if c.auth != "" {
		r.Header["Authorization"] = []string{c.auth}
	}
	if q.Type != "" {
		r.Header["Content-Type"] = []string{q.Type}
	}
	if q.Accept != "" {
		r.Header["Accept"] = []string{q.Accept}
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return Reply{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != q.Want {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
		return Reply{}, fmt.Errorf("%s %s was answered with %s instead of %d: %s", q.Method, u.Path, resp.Status, q.Want, strings.TrimSpace(string(text)))
	}
	reply := Reply{Header: resp.Header}
	if q.Keep {
		reply.Body, err = io.ReadAll(resp.Body)
		reply.Bytes = int64(len(reply.Body))
		return reply, err
	}
	for {
		n, err := resp.Body.Read(c.stuff)
		reply.Bytes += int64(n)
		if err == io.EOF {
			return reply, nil
		}
		if err != nil {
			return reply, fmt.Errorf("the answer to %s %s ended after %d bytes: %w", q.Method, u.Path, reply.Bytes, err)
		}
	}
}

// Run makes every worker do operations until count are done, and returns how long that took. Operations are numbered
// from 0. The first error stops all.
func Run(ctx context.Context, workers []*Client, count int, do func(context.Context, *Client, int) error) (time.Duration, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var all sync.WaitGroup
	start := time.Now()
	for _, c := range workers {
		all.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= count {
					return
				}
				if err := do(ctx, c, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	all.Wait()
	return time.Since(start), context.Cause(ctx)
}
