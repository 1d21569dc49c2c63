package proxy

import "testing"

func TestClassOf(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/v2": "base", "/v2/": "base", "/v2/_catalog": "catalog", "/v2/a/b/tags/list": "tags", "/v2/a/referrers/sha256:0": "referrers",
		"/v2/a/manifests/1.0": "manifest", "/v2/manifests/manifests/x": "manifest", "/v2/a/blobs/sha256:0": "blob",
		"/v2/a/blobs/uploads": "upload", "/v2/a/blobs/uploads/": "upload", "/v2/a/blobs/uploads/x.y": "upload", "/v2/blobs/uploads": "upload",
		"/v2/x": "other", "/v2x": "other", "/v2//": "other", "/service/token": "token", "/service/token/": "other", "/api/v2.0/ping": "api",
		"/c/login": "login", "/": "other", "": "other", "/etc/passwd": "other", "/v2/manifests": "other",
	} {
		if got := classNames[classOf(path)]; got != want {
			t.Errorf("%q is of class %s, not %s", path, got, want)
		}
	}
}

// Every path has a class, and none makes it panic.
func FuzzClassOf(f *testing.F) {
	for _, s := range []string{"/v2", "/v2/", "/v2/a/blobs/uploads/", "/v2/blobs/uploads", "//", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if c := classOf(path); c >= classes {
			t.Errorf("%q: %d", path, c)
		}
	})
}
