package logs

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"berth/appliance/fault"
	"berth/services/forward"
	"berth/services/segment"
)

// Client asks a log service through its socket.
type Client struct{ http *http.Client }

// NewClient makes a client for a socket. Nothing is connected yet.
func NewClient(socket string) *Client {
	return &Client{&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
		MaxIdleConns: 2, IdleConnTimeout: time.Minute,
	}}}
}

// maxAnswer is how much of an answer is read: a page has some 2 MiB of text at
// most, or one message, and JSON may need six bytes for one.
const maxAnswer = 64 << 20

// Search is segment.Store.Search of the service's store. end is the Seq from which
// a tail has what is not here.
func (c *Client) Search(ctx context.Context, q segment.Query) (page segment.Page, end uint64, err error) {
	var w pageWire
	if err := c.call(ctx, http.MethodGet, "/v1/messages?"+values(q).Encode(), &w); err != nil {
		return page, 0, err
	}
	page = segment.Page{Records: make([]segment.Record, len(w.Messages)), Next: w.Next, ScannedTo: w.ScannedTo}
	for i, m := range w.Messages {
		if page.Records[i], err = ParseRecord(m); err != nil {
			return page, 0, fmt.Errorf("cannot read the log service's answer: %w", err)
		}
	}
	return page, w.End, nil
}

// Collectors gives all collectors, and the answer that they came in.
func (c *Client) Collectors(ctx context.Context) (list []forward.Status, raw json.RawMessage, err error) {
	if err := c.call(ctx, http.MethodGet, "/v1/collectors", &raw); err != nil {
		return nil, nil, err
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, nil, fmt.Errorf("cannot read the log service's answer: %w", err)
	}
	return list, raw, nil
}

// Components gives the components that messages were seen of.
func (c *Client) Components(ctx context.Context) ([]string, error) {
	var w struct{ Components []string }
	err := c.call(ctx, http.MethodGet, "/v1/stats", &w)
	return w.Components, err
}

// Test has the service send a test message to a collector.
func (c *Client) Test(ctx context.Context, name string) (answer string, err error) {
	var w struct{ Answer string }
	err = c.call(ctx, http.MethodPost, "/v1/collectors/"+url.PathEscape(name)+"/test", &w)
	return w.Answer, err
}

// Raw gives the service's answer as it is, to what was asked of somebody else.
// Path is what follows /v1. Errors: those of the service, with its fields.
func (c *Client) Raw(ctx context.Context, method, path string, query url.Values) (answer json.RawMessage, err error) {
	err = c.call(ctx, method, "/v1"+path+"?"+query.Encode(), &answer)
	return answer, err
}

// Events gives a tail's server-sent events as they are. The caller closes them.
func (c *Client) Events(ctx context.Context, query url.Values, last string) (io.ReadCloser, error) {
	resp, err := c.do(ctx, http.MethodGet, "/v1/tail?"+query.Encode(), "Last-Event-ID", last)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// Tail gives f the messages from a Seq on as they come, until the connection
// ends; then it gives the Seq to go on with.
func (c *Client) Tail(ctx context.Context, q segment.Query, from uint64, f func(*segment.Record) error) (next uint64, err error) {
	v := values(q)
	v.Set("from", strconv.FormatUint(from, 10))
	resp, err := c.do(ctx, http.MethodGet, "/v1/tail?"+v.Encode())
	if err != nil {
		return from, err
	}
	defer resp.Body.Close()
	in := bufio.NewReaderSize(resp.Body, 64<<10)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return from, err
		}
		line = strings.TrimSuffix(line, "\n")
		if id, ok := strings.CutPrefix(line, "id: "); ok {
			if n, err := strconv.ParseUint(id, 10, 63); err == nil {
				from = n + 1
			}
		}
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			r, err := ParseRecord([]byte(data))
			if err == nil {
				err = f(&r)
			}
			if err != nil {
				return from, err
			}
		}
	}
}

// do makes a request, and an error of what is no answer. Header has names and
// values; what has no value is left out.
func (c *Client) do(ctx context.Context, method, target string, header ...string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://logs"+target, nil)
	if err != nil {
		return nil, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i+1] != "" {
			r.Header.Set(header[i], header[i+1])
		}
	}
	resp, err := c.http.Do(r)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // without the URL, which is nobody's business
		}
		return nil, fault.Wrap(fault.Unavailable, err, "the log service does not answer")
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var w struct{ Errors []refusal }
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if json.Unmarshal(b, &w) != nil || len(w.Errors) == 0 {
		return nil, fault.New(fault.Internal, "the log service answers %s", resp.Status)
	}
	kind := fault.Internal
	for _, k := range []fault.Kind{fault.Invalid, fault.NotFound, fault.TooMany, fault.Precondition, fault.Unavailable} {
		if code, _ := status(k); code == resp.StatusCode {
			kind = k
		}
	}
	e := w.Errors[0]
	return nil, fault.New(kind, "%s", strings.TrimPrefix(e.Message, e.Field+": ")).On(e.Field).WithHint("%s", e.Hint)
}

func (c *Client) call(ctx context.Context, method, target string, out any) error {
	resp, err := c.do(ctx, method, target)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(out); err != nil {
		return fault.Wrap(fault.Unavailable, err, "cannot read the log service's answer")
	}
	return nil
}
