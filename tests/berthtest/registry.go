package berthtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// A Registry speaks the registry's protocol for one login, bare: what a test sends is what goes out, but for the
// Authorization header, which is got as the registry's challenge says (Basic, or a Bearer token).
type Registry struct {
	URL   string // https://host:port
	Login Login
	HTTP  *http.Client

	mu     sync.Mutex
	tokens map[string]string // by scope
	basic  bool
}

// Registry returns a protocol client.
func (s *Server) Registry(t testing.TB, who Login) *Registry {
	t.Helper()
	return NewRegistry(s.URL, who, s.Client(t))
}

// NewRegistry is a protocol client for the registry at url, https://host:port.
func NewRegistry(url string, who Login, client *http.Client) *Registry {
	return &Registry{URL: url, Login: who, HTTP: client, tokens: map[string]string{}}
}

// A Reply is an answer whose body has been read.
type Reply struct {
	*http.Response
	Data []byte
}

// Code is the first error code of an error body, or "".
func (r *Reply) Code() string {
	var e struct{ Errors []struct{ Code string } }
	if json.Unmarshal(r.Data, &e) != nil || len(e.Errors) == 0 {
		return ""
	}
	return e.Errors[0].Code
}

// Do sends a request and reads the answer. Target is a path ("/v2/...") or a Location that the registry gave. Header is
// a list of name, value, name, value ...
func (r *Registry) Do(t testing.TB, method, target string, body []byte, header ...string) *Reply {
	t.Helper()
	reply, err := r.Try(t, method, target, body, header...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	return reply
}

// Try is Do for those who expect that the connection breaks.
func (r *Registry) Try(t testing.TB, method, target string, body []byte, header ...string) (*Reply, error) {
	t.Helper()
	base, err := url.Parse(r.URL)
	if err != nil {
		return nil, err
	}
	u, err := base.Parse(target)
	if err != nil {
		return nil, err
	}
	scope := scopeOf(method, u)
	for attempt := 0; ; attempt++ {
		var in io.Reader
		if body != nil {
			in = bytes.NewReader(body)
		}
		req, err := http.NewRequestWithContext(t.Context(), method, u.String(), in)
		if err != nil {
			return nil, err
		}
		for i := 0; i+1 < len(header); i += 2 {
			req.Header.Add(header[i], header[i+1])
		}
		r.authorize(req, scope)
		resp, err := r.HTTP.Do(req)
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			return nil, err
		}
		if resp.StatusCode == http.StatusUnauthorized && attempt == 0 {
			if again, err := r.challenge(t, resp.Header.Get("WWW-Authenticate"), scope); err != nil {
				return nil, err
			} else if again {
				continue
			}
		}
		return &Reply{resp, data}, nil
	}
}

func (r *Registry) authorize(req *http.Request, scope string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.basic {
		req.SetBasicAuth(r.Login.User, r.Login.Password)
	} else if token := r.tokens[scope]; token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
}

var challengeParam = regexp.MustCompile(`(\w+)="([^"]*)"`)

// challenge gets what the registry asked for. It is false if there is nothing more to offer.
func (r *Registry) challenge(t testing.TB, header, scope string) (bool, error) {
	kind, rest, _ := strings.Cut(header, " ")
	if strings.EqualFold(kind, "Basic") {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.basic = r.Login.User != ""
		return r.basic, nil
	}
	if !strings.EqualFold(kind, "Bearer") {
		return false, fmt.Errorf("the registry's challenge is neither Basic nor Bearer: %q", header)
	}
	q := url.Values{}
	var realm string
	for _, m := range challengeParam.FindAllStringSubmatch(rest, -1) {
		switch m[1] {
		case "realm":
			realm = m[2]
		case "service":
			q.Set("service", m[2])
		}
	}
	// The scopes asked for are the client's own, as with every real client: one token serves a whole session.
	for s := range strings.FieldsSeq(scope) {
		q.Add("scope", s)
	}
	req, err := http.NewRequestWithContext(t.Context(), "GET", realm+"?"+q.Encode(), nil)
	if err != nil {
		return false, err
	}
	if r.Login.User != "" {
		req.SetBasicAuth(r.Login.User, r.Login.Password)
	}
	resp, err := r.HTTP.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return false, err
	}
	if resp.StatusCode >= 500 {
		return false, fmt.Errorf("the token service answered %s: %.200s", resp.Status, data)
	}
	if resp.StatusCode != http.StatusOK {
		return false, nil // the 401 stands: wrong password
	}
	var answer struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return false, fmt.Errorf("the token service answered %q: %w", data, err)
	}
	if answer.Token == "" {
		answer.Token = answer.AccessToken
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tokens[scope] = answer.Token
	return answer.Token != "", nil
}

var (
	repositoryPath = regexp.MustCompile(`^/v2/(.+)/(?:manifests|blobs|tags|referrers)/`)
	catalogPath    = regexp.MustCompile(`^/v2/_catalog`)
)

// scopeOf is the scope that a request needs, a list with spaces between.
func scopeOf(method string, u *url.URL) string {
	if catalogPath.MatchString(u.Path) {
		return "registry:catalog:*"
	}
	m := repositoryPath.FindStringSubmatch(u.Path)
	if m == nil {
		return ""
	}
	actions := "pull"
	switch method {
	case "GET", "HEAD":
		if strings.Contains(u.Path, "/blobs/uploads/") {
			actions = "pull,push"
		}
	case "DELETE":
		if actions = "pull,delete"; strings.Contains(u.Path, "/blobs/uploads/") {
			actions = "pull,push"
		}
	default:
		actions = "pull,push"
	}
	scope := "repository:" + m[1] + ":" + actions
	if from := u.Query().Get("from"); from != "" {
		scope += " repository:" + from + ":pull"
	}
	return scope
}

// PushBlob uploads a blob in one request after the POST. The test fails unless it is accepted.
func (r *Registry) PushBlob(t testing.TB, repository string, b Blob) {
	t.Helper()
	post := r.Do(t, "POST", "/v2/"+repository+"/blobs/uploads/", nil)
	if post.StatusCode != http.StatusAccepted {
		t.Fatalf("POST uploads of %s: %s: %s", repository, post.Status, post.Data)
	}
	put := r.Do(t, "PUT", WithQuery(post.Header.Get("Location"), "digest", b.Digest), b.Data,
		"Content-Type", "application/octet-stream")
	if put.StatusCode != http.StatusCreated {
		t.Fatalf("PUT blob %s of %s: %s: %s", b.Digest, repository, put.Status, put.Data)
	}
}

// PushManifest uploads a manifest under a tag, or under its digest when tag is empty.
func (r *Registry) PushManifest(t testing.TB, repository, tag string, m Blob) *Reply {
	t.Helper()
	if tag == "" {
		tag = m.Digest
	}
	put := r.Do(t, "PUT", "/v2/"+repository+"/manifests/"+tag, m.Data, "Content-Type", m.MediaType)
	if put.StatusCode != http.StatusCreated {
		t.Fatalf("PUT manifest %s of %s: %s: %s", tag, repository, put.Status, put.Data)
	}
	return put
}

// PushImage uploads an image with all that it consists of.
func (r *Registry) PushImage(t testing.TB, repository, tag string, i *Image) {
	t.Helper()
	for _, b := range i.Blobs() {
		r.PushBlob(t, repository, b)
	}
	r.PushManifest(t, repository, tag, i.Manifest)
}

// WithQuery adds a query parameter to a Location, which may have a query of its own.
func WithQuery(location, key, value string) string {
	sep := "?"
	if strings.Contains(location, "?") {
		sep = "&"
	}
	return location + sep + key + "=" + url.QueryEscape(value)
}
