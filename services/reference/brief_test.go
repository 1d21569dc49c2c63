package reference_test

import (
	"testing"

	"berth/services/reference"
)

func TestBrief(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/v2/library/app/manifests/1.0":                         "/v2/library/app/manifests/1.0",
		"/v2/library/app/blobs/uploads/":                        "/v2/library/app/blobs/uploads/",
		"/v2/library/app/blobs/uploads/AaH-v9UqdPukymG0mG9u4gE": "/v2/library/app/blobs/uploads/AaH-v9UqdPuk…",
		"/v2/a/blobs/uploads/b/blobs/uploads/AaH-v9UqdPukymG0":  "/v2/a/blobs/uploads/b/blobs/uploads/AaH-v9UqdPuk…",
		"": "",
	} {
		if got := reference.Brief(path); got != want {
			t.Errorf("%q became %q, not %q", path, got, want)
		}
	}
}
