// Package conformance holds Berth to the OCI Distribution Specification 1.1, end to end over HTTPS with token
// authentication: each endpoint, its status codes, headers and error codes.
package conformance

import (
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"berth/tests/berthtest"
)

var berth *berthtest.Server

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if berth, err = berthtest.Launch(berthtest.Options{}); err != nil {
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

// A repository that one test uses, in a project of its own, as a user who may do everything in it.
type repository struct {
	*berthtest.Registry
	project string
	name    string // with the project
	login   berthtest.Login
	t       *testing.T
}

func newRepository(t *testing.T) *repository {
	t.Helper()
	t.Cleanup(func() { berth.ShowLog(t) })
	project := "p-" + berthtest.Name()
	berth.CreateProject(t, project, false)
	user := berth.CreateUser(t, "u-"+berthtest.Name())
	berth.AddMember(t, project, user.User, berthtest.ProjectAdmin)
	return &repository{berth.Registry(t, user), project, project + "/" + "some/app", user, t}
}

// in is the same repository for the subtest t.
func (r *repository) in(t *testing.T) *repository {
	c := *r
	c.t = t
	return &c
}

// do sends a request below /v2/<name>/ (or to a Location), and checks the status and, for errors, the error code in
// the body: want is "201" or "404 BLOB_UNKNOWN".
func (r *repository) do(want, method, target string, body []byte, header ...string) *berthtest.Reply {
	r.t.Helper()
	if !strings.HasPrefix(target, "/") && !strings.HasPrefix(target, "https://") {
		target = "/v2/" + r.name + "/" + target
	}
	reply := r.Do(r.t, method, target, body, header...)
	status, code, _ := strings.Cut(want, " ")
	if fmt.Sprint(reply.StatusCode) != status {
		r.t.Fatalf("%s %s: %s, want %s: %s", method, target, reply.Status, want, reply.Data)
	}
	if code != "" && method != "HEAD" && reply.Code() != code {
		r.t.Errorf("%s %s: error code %q, want %s: %s", method, target, reply.Code(), code, reply.Data)
	}
	return reply
}

// header fails the test unless a reply has this header.
func (r *repository) header(reply *berthtest.Reply, name, want string) {
	r.t.Helper()
	if got := reply.Header.Get(name); got != want {
		r.t.Errorf("%s %s: header %s is %q, want %q", reply.Request.Method, reply.Request.URL.Path, name, got, want)
	}
}

// location is the Location of a reply, which must be there.
func (r *repository) location(reply *berthtest.Reply) string {
	r.t.Helper()
	l := reply.Header.Get("Location")
	if l == "" {
		r.t.Fatalf("%s %s: no Location in the answer %s", reply.Request.Method, reply.Request.URL, reply.Status)
	}
	return l
}

// start opens an upload session and returns where.
func (r *repository) start() string {
	r.t.Helper()
	return r.location(r.do("202", "POST", "blobs/uploads/", nil))
}

// has fails the test unless a blob is there, whole.
func (r *repository) has(b berthtest.Blob) {
	r.t.Helper()
	head := r.do("200", "HEAD", "blobs/"+b.Digest, nil)
	r.header(head, "Content-Length", fmt.Sprint(len(b.Data)))
	r.header(head, "Docker-Content-Digest", b.Digest)
	get := r.do("200", "GET", "blobs/"+b.Digest, nil)
	r.header(get, "Docker-Content-Digest", b.Digest)
	if string(get.Data) != string(b.Data) {
		r.t.Errorf("blob %s came back with %d other bytes", b.Digest, len(get.Data))
	}
}

func (r *repository) pushImage(tag string) *berthtest.Image {
	r.t.Helper()
	i := berthtest.NewImage(1, 1000)
	r.PushImage(r.t, r.name, tag, i)
	return i
}

// attach pushes an artifact that refers to a subject, and returns it.
func (r *repository) attach(subject berthtest.Blob, artifactType string, annotations map[string]string) berthtest.Blob {
	r.t.Helper()
	empty := berthtest.NewBlob(berthtest.OCIEmpty, []byte("{}"))
	layer := berthtest.NewBlob("text/plain", berthtest.Random(100))
	r.PushBlob(r.t, r.name, empty)
	r.PushBlob(r.t, r.name, layer)
	more := map[string]any{"artifactType": artifactType, "subject": subject.Descriptor()}
	if annotations != nil {
		more["annotations"] = annotations
	}
	m := berthtest.Manifest(empty, []berthtest.Blob{layer}, more)
	put := r.PushManifest(r.t, r.name, "", m)
	r.header(put, "OCI-Subject", subject.Digest)
	return m
}

func bytesOf(n int) berthtest.Blob {
	return berthtest.NewBlob("application/octet-stream", berthtest.Random(n))
}

func sha512Of(data []byte) string {
	sum := sha512.Sum512(data)
	return "sha512:" + hex.EncodeToString(sum[:])
}

// end-1: the root tells whether the registry speaks the protocol, and asks for a login.
func TestBase(t *testing.T) {
	r := newRepository(t)
	r.do("200", "GET", "/v2/", nil)

	resp, err := berth.Client(t).Get(berth.URL + "/v2/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("GET /v2/ without a login: %s, want 401", resp.Status)
	}
	if c := resp.Header.Get("WWW-Authenticate"); !strings.HasPrefix(c, `Bearer realm="`+berth.URL+"/") || !strings.Contains(c, `service="`) {
		t.Errorf("GET /v2/ is challenged with %q: want a Bearer realm on %s and a service", c, berth.URL)
	}
	if v := resp.Header.Get("Docker-Distribution-Api-Version"); v != "registry/2.0" {
		t.Errorf("Docker-Distribution-Api-Version is %q: old Docker clients look for registry/2.0", v)
	}

	// A wrong password is told as such, in the protocol's words, whether by the registry or by its token service.
	wrong := berth.Registry(t, berthtest.Login{User: r.login.User, Password: "Wrong-1"})
	reply := wrong.Do(t, "GET", "/v2/"+r.name+"/tags/list", nil)
	if reply.StatusCode != http.StatusUnauthorized || reply.Code() != "UNAUTHORIZED" {
		t.Errorf("with a wrong password: %s %s, want 401 UNAUTHORIZED", reply.Status, reply.Data)
	}
	// So is basic authentication, without any token: scripts use it.
	for password, want := range map[string]int{r.login.Password: 200, "Wrong-1": 401} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", berth.URL+"/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth(r.login.User, password)
		resp, err := berth.Client(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("GET /v2/ with basic authentication: %s, want %d", resp.Status, want)
		}
	}
}

// A guest pulls and does not push; a stranger does neither, and does not learn what there is.
func TestRights(t *testing.T) {
	r := newRepository(t)
	image := r.pushImage("1")
	guest := berth.CreateUser(t, "g-"+berthtest.Name())
	berth.AddMember(t, r.project, guest.User, berthtest.Guest)
	stranger := berth.CreateUser(t, "s-"+berthtest.Name())

	for _, tc := range []struct {
		who          string
		login        berthtest.Login
		method, path string
		ok           bool
	}{
		{"guest", guest, "GET", "manifests/1", true},
		{"guest", guest, "GET", "blobs/" + image.Config.Digest, true},
		{"guest", guest, "POST", "blobs/uploads/", false},
		{"guest", guest, "PUT", "manifests/2", false},
		{"guest", guest, "DELETE", "manifests/" + image.Manifest.Digest, false},
		{"stranger", stranger, "GET", "manifests/1", false},
		{"stranger", stranger, "GET", "tags/list", false},
		{"stranger", stranger, "GET", "blobs/" + image.Config.Digest, false},
		{"stranger", stranger, "POST", "blobs/uploads/", false},
		{"nobody", berthtest.Login{}, "GET", "manifests/1", false},
		{"nobody", berthtest.Login{}, "POST", "blobs/uploads/", false},
	} {
		var body []byte
		if tc.method == "PUT" {
			body = image.Manifest.Data
		}
		reply := berth.Registry(t, tc.login).Do(t, tc.method, "/v2/"+r.name+"/"+tc.path, body, "Content-Type", berthtest.OCIManifest)
		refused := reply.StatusCode == 401 || reply.StatusCode == 403 || reply.StatusCode == 404
		if tc.ok && reply.StatusCode != 200 || !tc.ok && !refused {
			t.Errorf("%s: %s %s: %s %s", tc.who, tc.method, tc.path, reply.Status, reply.Data)
		}
		if !tc.ok && reply.Code() == "" {
			t.Errorf("%s: %s %s: no error code in %q", tc.who, tc.method, tc.path, reply.Data)
		}
	}
	r.do("200", "GET", "manifests/1", nil)
}
