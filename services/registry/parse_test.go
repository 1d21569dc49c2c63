package registry

import (
	"crypto/rand"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"berth/services/reference"
)

func TestRoute(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]request{
		"/v2":                              {end: endBase},
		"/v2/":                             {end: endBase},
		"/v2/_catalog":                     {end: endCatalog},
		"/v2/p/r/tags/list":                {endTags, "p/r", ""},
		"/v2/p/r/manifests/v1":             {endManifest, "p/r", "v1"},
		"/v2/p/r/blobs/sha256:x":           {endBlob, "p/r", "sha256:x"},
		"/v2/p/r/blobs/uploads/":           {endUploads, "p/r", ""},
		"/v2/p/r/blobs/uploads":            {endUploads, "p/r", ""},
		"/v2/p/r/blobs/uploads/s":          {endUpload, "p/r", "s"},
		"/v2/p/r/referrers/sha256:x":       {endReferrers, "p/r", "sha256:x"},
		"/v2/p/manifests/manifests/v1":     {endManifest, "p/manifests", "v1"},
		"/v2/p/blobs/uploads/manifests/v1": {endManifest, "p/blobs/uploads", "v1"},
		"/v2/p/tags/list/tags/list":        {endTags, "p/tags/list", ""},
	} {
		if got, err := route(path); err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", path, got, err, want)
		}
	}
	for _, path := range []string{"/", "/v1/", "/v2x", "/v2/p", "/v2/p/r", "/v2/tags/list", "/v2/one/manifests/v1", "/v2/p/../r/manifests/v1",
		"/v2/P/r/manifests/v1", "/v2//r/manifests/v1", "/v2/p/r\x00/manifests/v1", "/v2/manifests/v1", "/v2/p/r/unknown/v1"} {
		if got, err := route(path); err == nil {
			t.Errorf("%s: accepted as %+v", path, got)
		}
	}
}

func FuzzRoute(f *testing.F) {
	f.Add("/v2/p/r/manifests/v1")
	f.Add("/v2/p/r/blobs/uploads/x")
	f.Fuzz(func(t *testing.T, path string) {
		req, err := route(path)
		if err != nil {
			return
		}
		if req.end != endBase && req.end != endCatalog && reference.CheckName(req.name) != nil {
			t.Errorf("%q gave the name %q", path, req.name)
		}
		for _, m := range []string{http.MethodGet, http.MethodPut, "BREW"} {
			if need, _, ok := req.needs(m); ok && need == 0 {
				t.Errorf("%s %q needs nothing", m, path)
			}
		}
	})
}

func TestContentRange(t *testing.T) {
	t.Parallel()
	for h, want := range map[string][2]int64{"0-9": {0, 9}, "10-10": {10, 10}, "bytes 5-7/100": {5, 7}, "bytes 5-7/*": {5, 7}} {
		if first, last, err := parseContentRange(h); err != nil || [2]int64{first, last} != want {
			t.Errorf("%q: got %d-%d, %v", h, first, last, err)
		}
	}
	for _, h := range []string{"", "-", "5", "7-5", "-1-5", "a-b", "1-", "+1-2", "0-+2", "99999999999999999999-1"} {
		if _, _, err := parseContentRange(h); err == nil {
			t.Errorf("%q was accepted", h)
		}
	}
}

func FuzzContentRange(f *testing.F) {
	f.Add("0-1023")
	f.Add("bytes 0-0/*")
	f.Fuzz(func(t *testing.T, h string) {
		if first, last, err := parseContentRange(h); err == nil && (first < 0 || last < first) {
			t.Errorf("%q gave %d-%d", h, first, last)
		}
	})
}

// A session's token belongs to one repository, one key and its time.
func TestSession(t *testing.T) {
	t.Parallel()
	key := []byte(rand.Text())
	now := time.Now()
	s, err := newSession(reference.SHA512, now)
	if err != nil {
		t.Fatal(err)
	}
	token := s.token(key, "p/r")
	got, err := parseSession(token, key, "p/r", now)
	if err != nil || got.id != s.id || got.algorithm != reference.SHA512 {
		t.Fatalf("got %+v, %v", got, err)
	}
	for name, bad := range map[string]func() error{
		"another repository": func() error { _, err := parseSession(token, key, "p/x", now); return err },
		"another key":        func() error { _, err := parseSession(token, []byte("x"), "p/r", now); return err },
		"too late": func() error {
			_, err := parseSession(token, key, "p/r", now.Add(sessionLife+2*time.Second))
			return err
		},
		"cut":        func() error { _, err := parseSession(token[:20], key, "p/r", now); return err },
		"changed":    func() error { _, err := parseSession("_"+token[1:], key, "p/r", now); return err },
		"not base64": func() error { _, err := parseSession(strings.Repeat("!", len(token)), key, "p/r", now); return err },
	} {
		if bad() == nil {
			t.Errorf("accepted: %s", name)
		}
	}
}

func FuzzSession(f *testing.F) {
	s, _ := newSession(reference.SHA256, time.Now())
	f.Add(s.token([]byte("k"), "p/r"))
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := parseSession(token, []byte("another key"), "p/r", time.Now()); err == nil {
			t.Errorf("%q was accepted", token)
		}
	})
}

// What a stranger sends as n or last never fails but as a bad request.
func FuzzPageSize(f *testing.F) {
	f.Add("10")
	f.Add("-1")
	f.Add("99999999999999999999999")
	f.Fuzz(func(t *testing.T, n string) {
		got, err := pageSize(map[string][]string{"n": {n}})
		if err == nil && (got < 0 || got > maxPage) {
			t.Errorf("n=%q gave %d", n, got)
		}
	})
}

// An Authorization header is a token, a name with a password, or refused.
func FuzzAuthorization(f *testing.F) {
	for _, h := range []string{"", "Bearer x.y.z", "bearer x", "Basic YWRtaW46eA==", "Basic !!!", "Digest x", "Bearer ", "Basic"} {
		f.Add(h)
	}
	f.Fuzz(func(t *testing.T, h string) {
		r := &http.Request{Header: http.Header{"Authorization": {h}}}
		c, err := readCredentials(r)
		if err != nil {
			return
		}
		kinds := 0
		for _, is := range []bool{c.anonymous, c.token != "", c.user != "" || c.password != ""} {
			if is {
				kinds++
			}
		}
		if kinds > 1 || c.anonymous && h != "" {
			t.Errorf("%q was read as %+v", h, c)
		}
	})
}

// A cursor survives its way through a Link header, whatever is in it.
func FuzzCursor(f *testing.F) {
	f.Add("v1.0")
	f.Add("a/b c&n=5#x%00>;\r\n")
	f.Fuzz(func(t *testing.T, last string) {
		h := http.Header{}
		nextLink(h, "/v2/p/r/tags/list", url.Values{"n": {"10"}, "last": {last}})
		link := h.Get("Link")
		target, rel, ok := strings.Cut(strings.TrimPrefix(link, "<"), ">")
		u, err := url.Parse(target)
		if !ok || rel != `; rel="next"` || err != nil || u.Query().Get("last") != last || strings.ContainsAny(link, "\r\n") {
			t.Errorf("%q became %q (%v)", last, link, err)
		}
	})
}
