package logs

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"

	"berth/tests/berthtest"
)

// A system administrator finds and follows messages through the REST API, and
// nobody else does.
func TestMessagesOverTheAPI(t *testing.T) {
	t.Parallel()
	address, arrived := collector(t)
	s := berthtest.Start(t, berthtest.Options{Args: settings(t, "metrics: off\nlogs:\n  listen: off\n  forward: [{name: central, to: 'tcp://"+address+"'}]\n")})
	c := caller{t, s}
	admin := []string{"Authorization", basic("admin", s.AdminPassword(t))}
	tail := follow(t, s, admin[1])
	c.send("GET", "/v2/", "", "", "X-Request-Id", "looked-for", admin[0], admin[1])
	for {
		line, err := tail.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(line, "data: ") && strings.Contains(line, `"request_id":"looked-for"`) {
			break
		}
	}
	var page struct {
		Messages []struct {
			Component, Message string
			Attributes         map[string]string
		}
	}
	body, _ := c.send("GET", "/api/berth/v1/logs?request=looked-for&since=1h", "", "", admin...)
	decode(t, []byte(body), &page)
	if len(page.Messages) != 1 || page.Messages[0].Component != "proxy" || page.Messages[0].Attributes["path"] != "/v2/" {
		t.Errorf("found %s", body)
	}
	if body, _ := c.send("GET", "/api/berth/v1/logs?since=some-day", "", "", admin...); !strings.Contains(body, "since") || !strings.Contains(body, "BAD_REQUEST") {
		t.Errorf("a since that is none: %s", body)
	}
	if body, _ := c.send("GET", "/api/berth/v1/logs/stats", "", "", admin...); !strings.Contains(body, `"messages"`) {
		t.Errorf("stats: %s", body)
	}
	if body, _ := c.send("GET", "/api/berth/v1/logs/collectors", "", "", admin...); !strings.Contains(body, `"central"`) {
		t.Errorf("collectors: %s", body)
	}
	before := arrived.Load()
	if body, _ := c.send("POST", "/api/berth/v1/logs/collectors/central/test", "", "", admin...); !strings.Contains(body, address) {
		t.Errorf("a test message: %s", body)
	}
	until(t, "the test message", func() bool { return arrived.Load() > before })
	if body, _ := c.send("POST", "/api/berth/v1/logs/collectors/nobody/test", "", "", admin...); !strings.Contains(body, "NOT_FOUND") {
		t.Errorf("a test message to nobody: %s", body)
	}
	s.API(t, s.Admin(t), "POST", "/users", map[string]any{"username": "jane", "email": "jane@example.org", "realname": "Jane", "password": "Jane12345"}, 201)
	for path, who := range map[string]string{"/api/berth/v1/logs": basic("jane", "Jane12345"), "/api/berth/v1/logs/tail": basic("jane", "Jane12345"), "/api/berth/v1/logs/stats": ""} {
		if body, _ := c.send("GET", path, "", "", "Authorization", who); !strings.Contains(body, "FORBIDDEN") && !strings.Contains(body, "UNAUTHORIZED") {
			t.Errorf("%s for %q: %s", path, who, body)
		}
	}
}

// follow opens a tail of the front door's messages.
func follow(t *testing.T, s *berthtest.Server, authorization string) *bufio.Reader {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", s.URL+"/api/berth/v1/logs/tail?component=proxy", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", authorization)
	res, err := s.Client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" {
		b, _ := io.ReadAll(io.LimitReader(res.Body, 1000))
		t.Fatalf("%s %s: %s", res.Status, res.Header.Get("Content-Type"), b)
	}
	return bufio.NewReader(res.Body)
}
