// Package badinput sends a Berth what no honest client sends, byte by byte over TCP where Go's own client would tidy it
// up. Each is answered with a status and an error code of the specification, and changes nothing.
package badinput

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"berth/tests/berthtest"
)

var berth *berthtest.Server

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if berth, err = berthtest.Launch(berthtest.Options{HTTP: true}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := berth.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

// A site is a project with one image, of which nothing may change.
type site struct {
	t      *testing.T
	repo   string
	image  *berthtest.Image
	login  string // an Authorization header, with its end of line
	client *berthtest.Registry
	before string
}

func newSite(t *testing.T) *site {
	t.Helper()
	project := "p-" + berthtest.Name()
	berth.CreateProject(t, project, false)
	admin := berth.Admin(t)
	s := &site{t: t, repo: project + "/app", image: berthtest.NewImage(1, 1000), client: berth.Registry(t, admin),
		login: "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(admin.User+":"+admin.Password)) + "\r\n"}
	s.client.PushImage(t, s.repo, "1", s.image)
	s.before = s.state()
	t.Cleanup(func() { berth.ShowLog(t) })
	return s
}

// unchanged is for the end of every test.
func (s *site) unchanged() {
	s.t.Helper()
	if after := s.state(); after != s.before {
		s.t.Errorf("something has changed: tags and catalog were\n%s\nand are\n%s", s.before, after)
	}
}

// state is what can be seen of the registry.
func (s *site) state() string {
	s.t.Helper()
	tags := s.client.Do(s.t, "GET", "/v2/"+s.repo+"/tags/list", nil)
	catalog := s.client.Do(s.t, "GET", "/v2/_catalog", nil)
	return string(tags.Data) + string(catalog.Data)
}

// raw sends bytes and reads one answer. Status 0 means that the connection was closed without one.
func (s *site) raw(request string) (status int, code string, body []byte) {
	s.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(berth.HTTP, "http://"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	go io.WriteString(c, request) // the server may answer, and close, before it has read all
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			s.t.Errorf("no answer to %.200q", request)
		}
		return 0, "", nil
	}
	defer resp.Body.Close()
	body, _ = io.ReadAll(resp.Body)
	return resp.StatusCode, (&berthtest.Reply{Response: resp, Data: body}).Code(), body
}

// wants checks an answer against one of "400 NAME_INVALID", "404" ... ; "closed" is no answer at all.
func (s *site) wants(name, request string, wants ...string) {
	s.t.Helper()
	status, code, body := s.raw(request)
	for _, w := range wants {
		number, wantCode, _ := strings.Cut(w, " ")
		if w == "closed" && status == 0 || number == strconv.Itoa(status) && (wantCode == "" || wantCode == code) {
			return
		}
	}
	s.t.Errorf("%s: %d %s, want %v: %.300s", name, status, code, wants, body)
}

// get is a request without a body.
func (s *site) get(method, target string, headers ...string) string {
	return method + " " + target + " HTTP/1.1\r\nHost: x\r\n" + s.login + strings.Join(append(headers, ""), "\r\n") + "Connection: close\r\n\r\n"
}

// with is a request with a body and its length.
func (s *site) with(method, target, contentType, body string, headers ...string) string {
	return method + " " + target + " HTTP/1.1\r\nHost: x\r\n" + s.login + "Content-Type: " + contentType + "\r\nContent-Length: " + strconv.Itoa(len(body)) +
		"\r\n" + strings.Join(append(headers, ""), "\r\n") + "Connection: close\r\n\r\n" + body
}

// Paths that try to leave where they belong are refused, however they are written.
func TestPaths(t *testing.T) {
	s := newSite(t)
	defer s.unchanged()
	for _, tc := range []struct{ target, want string }{
		{"/v2/../etc/passwd", "400"},
		{"/v2/" + s.repo + "/../../_catalog", "400"},
		{"/v2/%2e%2e/%2e%2e/etc/passwd", "400"},
		{"/v2/" + s.repo + "/%2e%2e/x/manifests/1", "400"},
		{"/v2/" + s.repo + "/%252e%252e/x/manifests/1", "400"},
		{"/v2/" + s.repo + "%00/manifests/1", "400"},
		{"/v2/" + s.repo + "/manifests/1%00", "400"},
		{"/v2/" + s.repo + "/blobs/..%2f..%2f..%2fkeys%2fberth.key", "400"},
		{"/v2/" + s.repo + "//manifests/1", "400 NAME_INVALID"},
		{"/v2//manifests/1", "400 NAME_INVALID"},
		{`/v2/` + s.repo + `\x/manifests/1`, "400 NAME_INVALID"},
		{"/v2/" + s.repo + "%5cx/manifests/1", "400 NAME_INVALID"},
		{"/v2/UPPER/app/manifests/1", "400 NAME_INVALID"},
		{"/v2/" + s.repo + "%0d%0aX:y/manifests/1", "400 NAME_INVALID"},
		{"/v2/" + strings.Repeat("a/", 200) + "a/manifests/1", "400 NAME_INVALID"},
		{"/v2/" + s.repo + "/manifests/" + strings.Repeat("t", 200), "404 MANIFEST_UNKNOWN"},
		{"/v2/" + s.repo + "/manifests/sha256:zz", "400 DIGEST_INVALID"},
		{"/v2/" + s.repo + "/blobs/sha256:" + strings.Repeat("a", 63), "400 DIGEST_INVALID"},
		{"/v2/" + s.repo + "/blobs/md5:" + strings.Repeat("a", 32), "400"},
		{"/v2/" + s.repo + "/nothing", "404"},
		{"/v2/%", "400"},
		{"/v2/%zz", "400"},
		{"*", "400"},
		{"http://other.example/../v2/", "400"},
	} {
		for _, method := range []string{"GET", "DELETE"} {
			s.wants(method+" "+tc.target, s.get(method, tc.target), tc.want, "400", "404", "405")
		}
		s.wants("GET "+tc.target, s.get("GET", tc.target), tc.want)
	}
}

// What is too large, broken, or not what its digest says is refused in the specification's words.
func TestManifests(t *testing.T) {
	s := newSite(t)
	defer s.unchanged()
	put := func(name, contentType, body string, wants ...string) {
		t.Helper()
		s.wants(name, s.with("PUT", "/v2/"+s.repo+"/manifests/bad", contentType, body), wants...)
	}
	put("4 MiB and a byte", berthtest.OCIManifest, `{"schemaVersion":2,"x":"`+strings.Repeat("a", 4<<20-24-1)+`"}`, "413 SIZE_INVALID")
	deep := strings.Repeat(`{"a":`, 200_000) + "1" + strings.Repeat("}", 200_000)
	put("deep nesting", berthtest.OCIManifest, `{"schemaVersion":2,"mediaType":"`+berthtest.OCIManifest+`","x":`+deep+`}`, "400 MANIFEST_INVALID")
	put("deep lists", berthtest.OCIManifest, strings.Repeat("[", 1_000_000), "400 MANIFEST_INVALID")
	put("no JSON", berthtest.OCIManifest, "\x00\x01\x02", "400 MANIFEST_INVALID")
	put("nothing", berthtest.OCIManifest, "", "400 MANIFEST_INVALID")
	put("a list", berthtest.OCIManifest, "[]", "400 MANIFEST_INVALID")
	put("null", berthtest.OCIManifest, "null", "400 MANIFEST_INVALID")
	put("two documents", berthtest.OCIManifest, string(s.image.Manifest.Data)+string(s.image.Manifest.Data), "400 MANIFEST_INVALID")
	put("another type than it says", berthtest.DockerManifest, string(s.image.Manifest.Data), "400 MANIFEST_INVALID")
	put("text", "text/plain", string(s.image.Manifest.Data), "400 MANIFEST_INVALID")
	put("Docker schema 1", "application/vnd.docker.distribution.manifest.v1+json", `{"schemaVersion":1,"fsLayers":[]}`, "400 UNSUPPORTED")
	put("a negative size", berthtest.OCIManifest, strings.Replace(string(s.image.Manifest.Data), `"size":`, `"size":-`, 1), "400 MANIFEST_INVALID")
	put("a blob that is not there", berthtest.OCIManifest,
		strings.ReplaceAll(string(s.image.Manifest.Data), s.image.Layers[0].Digest, berthtest.Digest([]byte("nowhere"))), "400 MANIFEST_BLOB_UNKNOWN", "404 MANIFEST_BLOB_UNKNOWN")
	put("a broken digest", berthtest.OCIManifest, strings.ReplaceAll(string(s.image.Manifest.Data), "sha256:", "sha256:../"), "400 MANIFEST_INVALID", "400 DIGEST_INVALID")
	other := berthtest.Digest([]byte("something else"))
	s.wants("another digest", s.with("PUT", "/v2/"+s.repo+"/manifests/"+other, berthtest.OCIManifest, string(s.image.Manifest.Data)), "400 DIGEST_INVALID")
	s.wants("a bad tag", s.with("PUT", "/v2/"+s.repo+"/manifests/-bad", berthtest.OCIManifest, string(s.image.Manifest.Data)), "400")
	s.wants("headers beyond all measure", s.get("GET", "/v2/", "X-Large: "+strings.Repeat("a", 200<<10)), "431", "closed")
	s.wants("headers without end", s.get("GET", "/v2/", strings.Repeat("X-Y: z\r\n", 20_000)+"A: b"), "431", "closed")
	s.wants("a URL without end", s.get("GET", "/v2/_catalog?last="+strings.Repeat("a", 200<<10)), "431", "414", "closed")
}

// Uploads that contradict themselves are refused, and nothing of them can be pulled.
func TestUploads(t *testing.T) {
	s := newSite(t)
	defer s.unchanged()
	blob := berthtest.NewBlob("application/octet-stream", berthtest.Random(1000))
	begin := func() string {
		t.Helper()
		post := s.client.Do(t, "POST", "/v2/"+s.repo+"/blobs/uploads/", nil)
		return post.Header.Get("Location")
	}
	const octets = "application/octet-stream"
	other := berthtest.Digest([]byte("other"))
	s.wants("another digest", s.with("PUT", berthtest.WithQuery(begin(), "digest", other), octets, string(blob.Data)), "400 DIGEST_INVALID")
	s.wants("no digest", s.with("PUT", begin(), octets, string(blob.Data)), "400 DIGEST_INVALID")
	s.wants("nonsense for a digest", s.with("PUT", berthtest.WithQuery(begin(), "digest", "sha256:.."), octets, string(blob.Data)), "400 DIGEST_INVALID")
	s.wants("a session that never was", s.with("PATCH", "/v2/"+s.repo+"/blobs/uploads/00000000-0000-0000-0000-000000000000", octets, "x"), "404 BLOB_UPLOAD_UNKNOWN")
	s.wants("a session of another repository", s.with("PATCH", strings.Replace(begin(), s.repo, s.repo+"2", 1), octets, "x"), "404 BLOB_UPLOAD_UNKNOWN")
	for name, ranges := range map[string]string{
		"a range longer than the body": "Content-Range: 0-1999", "a range shorter than the body": "Content-Range: 0-1",
		"a range backwards": "Content-Range: 9-0", "a negative range": "Content-Range: -1-998", "no range at all": "Content-Range: bytes",
		"a range beyond all numbers": "Content-Range: 0-99999999999999999999999", "another length": "Content-Range: 0-998\r\nContent-Range: 0-1",
	} {
		s.wants(name, s.with("PATCH", begin(), octets, string(blob.Data), ranges), "400 BLOB_UPLOAD_INVALID", "416")
	}
	s.wants("a range with a gap", s.with("PATCH", begin(), octets, string(blob.Data), "Content-Range: 5000-5999"), "416")
	// Two contradicting ranges: which of them is read does not matter, for the length must fit.
	s.wants("a wrong range before the right one", s.with("PATCH", begin(), octets, string(blob.Data), "Content-Range: 7-8", "Content-Range: 0-999"), "400 BLOB_UPLOAD_INVALID", "416")
	s.wants("a mount of nonsense", s.with("POST", "/v2/"+s.repo+"/blobs/uploads/?mount=nonsense&from="+s.repo, octets, ""), "400 DIGEST_INVALID")
	s.wants("a mount from nonsense", s.with("POST", "/v2/"+s.repo+"/blobs/uploads/?mount="+blob.Digest+"&from=../../x", octets, ""), "202")
	for _, d := range []string{blob.Digest, other} {
		if head := s.client.Do(t, "HEAD", "/v2/"+s.repo+"/blobs/"+d, nil); head.StatusCode != 404 {
			t.Errorf("HEAD of a blob that was never pushed: %s", head.Status)
		}
	}
}

// Numbers and names in queries are checked, and absurd ones cost nothing.
func TestQueries(t *testing.T) {
	s := newSite(t)
	defer s.unchanged()
	for query, want := range map[string]string{
		"n=-1": "400 PAGINATION_NUMBER_INVALID", "n=x": "400 PAGINATION_NUMBER_INVALID", "n=1e9": "400 PAGINATION_NUMBER_INVALID",
		"n=": "400 PAGINATION_NUMBER_INVALID", "n=99999999999999999999999": "200", "n=2147483647": "200", "n=0": "200",
		"last=%00": "400", "last=%ff%fe": "400", "last=" + strings.Repeat("z", 5000): "200", "last='%3Bdrop%20table%20tags": "200", "n=1&n=x": "200",
	} {
		for _, path := range []string{"/v2/_catalog", "/v2/" + s.repo + "/tags/list"} {
			s.wants(path+"?"+query, s.get("GET", path+"?"+query), want)
		}
	}
	s.wants("referrers after nonsense", s.get("GET", "/v2/"+s.repo+"/referrers/"+s.image.Manifest.Digest+"?last=x"), "400")
	s.wants("referrers of nonsense", s.get("GET", "/v2/"+s.repo+"/referrers/latest"), "400 DIGEST_INVALID")
}

// A strange Authorization header is nobody's, and no token that Berth did not sign is believed.
func TestAuthorization(t *testing.T) {
	s := newSite(t)
	defer s.unchanged()
	b64 := base64.RawURLEncoding.EncodeToString
	claims := fmt.Sprintf(`{"iss":"harbor-token-issuer","aud":"harbor-registry","sub":"admin","iat":%d,"nbf":%[1]d,"exp":%d,"jti":"x","access":[{"type":"repository","name":%q,"actions":["pull","push","delete"]}]}`,
		time.Now().Unix(), time.Now().Add(time.Hour).Unix(), s.repo)
	s.login = ""
	for _, header := range []string{
		"Bearer", "Bearer ", "Bearer a.b.c", "Bearer ....", "Bearer " + strings.Repeat("a", 30_000), "Basic", "Basic !!!", "Basic YWRtaW4=", "Basic " + base64.StdEncoding.EncodeToString([]byte(":")),
		"Digest username=admin", "Negotiate x", "admin:admin", "Bearer " + b64([]byte(`{"alg":"none"}`)) + "." + b64([]byte(claims)) + ".",
		"Bearer " + b64([]byte(`{"alg":"None","typ":"JWT"}`)) + "." + b64([]byte(claims)) + ".",
		"Bearer " + b64([]byte(`{"alg":"HS256","kid":"x"}`)) + "." + b64([]byte(claims)) + "." + b64(berthtest.Random(32)),
		"Bearer " + b64([]byte(`{"alg":"EdDSA","kid":"../../keys/berth.key"}`)) + "." + b64([]byte(claims)) + "." + b64(berthtest.Random(64)),
		"Bearer " + b64([]byte(`{"alg":"EdDSA","kid":{}}`)) + "." + b64([]byte(claims)) + "." + b64(berthtest.Random(64)),
	} {
		for _, request := range []string{
			s.get("GET", "/v2/"+s.repo+"/manifests/1", "Authorization: "+header),
			s.get("DELETE", "/v2/"+s.repo+"/manifests/1", "Authorization: "+header),
			s.get("GET", "/v2/", "Authorization: "+header),
		} {
			s.wants(fmt.Sprintf("%.60s", header), request, "401 UNAUTHORIZED")
		}
		s.wants(fmt.Sprintf("token for %.60s", header), s.get("GET", "/service/token?service=harbor-registry&scope=repository:"+s.repo+":pull", "Authorization: "+header), "401")
	}
	// Scopes that ask for everything, or without end, grant a stranger nothing.
	for _, scope := range []string{
		"scope=repository:" + s.repo + ":*", "scope=registry:catalog:*", "scope=repository:*:*", "scope=a", "scope=:::", "scope=repository::pull", "scope=repository:" + s.repo + ":",
		strings.Repeat("scope=repository:"+s.repo+":pull,push&", 600), "scope=repository:" + s.repo + ":" + strings.Repeat("pull,", 5000) + "pull",
	} {
		status, _, body := s.raw(s.get("GET", "/service/token?service=harbor-registry&"+scope))
		var token struct{ Token string }
		switch {
		case status >= 400 && status < 500:
			continue
		case status != 200 || json.Unmarshal(body, &token) != nil:
			t.Errorf("token for %.60s: %d %.200s", scope, status, body)
			continue
		}
		s.wants("pull with "+scope[:min(60, len(scope))], s.get("GET", "/v2/"+s.repo+"/manifests/1", "Authorization: Bearer "+token.Token), "401 UNAUTHORIZED")
		s.wants("catalog with "+scope[:min(60, len(scope))], s.get("GET", "/v2/_catalog", "Authorization: Bearer "+token.Token), "401 UNAUTHORIZED")
	}
}

// Requests whose framing is ambiguous, by which one request is smuggled inside another, are refused or end their
// connection; what is smuggled is never served as the victim's.
func TestFraming(t *testing.T) {
	s := newSite(t)
	defer s.unchanged()
	head := "PATCH /v2/" + s.repo + "/blobs/uploads/x HTTP/1.1\r\nHost: x\r\n" + s.login
	smuggled := "DELETE /v2/" + s.repo + "/manifests/1 HTTP/1.1\r\nHost: x\r\n" + s.login + "\r\n"
	for name, request := range map[string]string{
		"two lengths":                head + "Content-Length: 0\r\nContent-Length: 5\r\n\r\nhello",
		"a list of lengths":          head + "Content-Length: 0, 5\r\n\r\nhello",
		"a negative length":          head + "Content-Length: -1\r\n\r\n",
		"a signed length":            head + "Content-Length: +5\r\n\r\nhello",
		"a length beyond numbers":    head + "Content-Length: 99999999999999999999\r\n\r\n",
		"an unknown coding":          head + "Transfer-Encoding: gzip\r\n\r\nhello",
		"chunked twice":              head + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
		"chunked and another":        head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
		"a space before the colon":   head + "Content-Length : 5\r\n\r\nhello",
		"a folded header":            head + "X-A: b\r\n c: d\r\n\r\n",
		"a header without a name":    head + ": b\r\n\r\n",
		"NUL in a header":            head + "X-A: b\x00c\r\n\r\n",
		"no host":                    "GET /v2/ HTTP/1.1\r\n\r\n",
		"two hosts":                  "GET /v2/ HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
		"a host that is none":        "GET /v2/ HTTP/1.1\r\nHost: x/../y\r\n\r\n",
		"a version that is none":     "GET /v2/ HTTP/9.9\r\nHost: x\r\n\r\n",
		"no version":                 "GET /v2/\r\n\r\n",
		"a method that is none":      "G(T /v2/ HTTP/1.1\r\nHost: x\r\n\r\n",
		"the preface of HTTP/2":      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"TLS where there is none":    "\x16\x03\x01\x00\xf1\x01\x00\x00\xed\x03\x03",
		"spaces in the request line": "GET  /v2/  HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		s.wants(name, request+strings.Repeat("\r\n", 3), "400", "404", "501", "505", "closed")
	}
	for name, chunks := range map[string]string{
		"a chunk size beyond numbers": "fffffffffffffffff\r\nhello\r\n0\r\n\r\n", "a negative chunk": "-5\r\nhello\r\n0\r\n\r\n",
		"a chunk longer than it says": "2\r\nhello\r\n0\r\n\r\n", "a chunk size that is none": "x\r\nhello\r\n0\r\n\r\n",
		"an extension without end": "5;" + strings.Repeat("a", 1<<20) + "\r\nhello\r\n0\r\n\r\n",
	} {
		post := s.client.Do(t, "POST", "/v2/"+s.repo+"/blobs/uploads/", nil)
		request := "PATCH " + post.Header.Get("Location") + " HTTP/1.1\r\nHost: x\r\n" + s.login + "Transfer-Encoding: chunked\r\n\r\n" + chunks
		s.wants(name, request, "400", "closed")
	}
	// A body that looks like a request is a body: both lengths agree, or the connection ends.
	for name, request := range map[string]string{
		"length and chunks": head + fmt.Sprintf("Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 5+len(smuggled)) + smuggled,
		"a hidden coding":   head + "Content-Length: 6\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\nX" + smuggled,
		"a GET with a body": "GET /v2/ HTTP/1.1\r\nHost: x\r\n" + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(smuggled)) + smuggled,
	} {
		s.wants(name, request, "400", "401", "404", "501", "closed")
	}
}

// A layer that would unpack to gigabytes is bytes like any other: Berth does not unpack layers.
func TestGzipBomb(t *testing.T) {
	s := newSite(t)
	defer s.unchanged()
	var bomb bytes.Buffer
	w, _ := gzip.NewWriterLevel(&bomb, gzip.BestCompression)
	zeros := make([]byte, 1<<20)
	for range 1024 {
		w.Write(zeros)
	}
	w.Close()
	before := berth.RSS(t)
	layer := berthtest.NewBlob(berthtest.OCILayer, bomb.Bytes())
	config := berthtest.NewBlob(berthtest.OCIConfig, bomb.Bytes()[:1000])
	s.client.PushBlob(t, s.repo, layer)
	s.client.PushBlob(t, s.repo, config)
	m := berthtest.Manifest(config, []berthtest.Blob{layer}, nil)
	s.client.PushManifest(t, s.repo, "bomb", m)
	// Also as a manifest that says that it is compressed, which is no manifest.
	s.wants("a compressed manifest", s.with("PUT", "/v2/"+s.repo+"/manifests/bad", berthtest.OCIManifest, bomb.String()[:100_000], "Content-Encoding: gzip"), "400 MANIFEST_INVALID")
	berth.API(t, berth.Admin(t), "GET", "/projects/"+strings.TrimSuffix(s.repo, "/app")+"/repositories/app/artifacts/bomb", nil, 200)
	if grown := berth.RSS(t) - before; grown > 200<<20 {
		t.Errorf("memory grew by %d MB", grown>>20)
	}
	s.client.Do(t, "DELETE", "/v2/"+s.repo+"/manifests/"+m.Digest, nil)
}
