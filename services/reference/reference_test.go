package reference_test

import (
	"regexp"
	"strings"
	"testing"

	"berth/services/reference"
)

// The expressions are the specification's; the loops must agree with them.
var (
	nameRE    = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)+$`)
	projectRE = regexp.MustCompile(`^[a-z0-9]+(?:[._-][a-z0-9]+)*$`)
	tagRE     = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	digestRE  = regexp.MustCompile(`^(sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128})$`)
)

var samples = []string{
	"", "/", "a", "a/b", "a/b/c", "a//b", "/a/b", "a/b/", "A/b", "a/B", "a.b/c_d", "a..b/c", "a__b/c", "a___b/c", "a---b/c", "a-/b", "-a/b",
	"a/.b", "a/b.", "a/b-", "a/_b", "a._b/c", "a/b c", "a/b\x00", "a/ü", "0/9", "a/../b", "a/%2e%2e", "library/hello-world", "v1", "_x", ".x", "-x",
	"latest", "V1.0-rc_1", strings.Repeat("a", 128), strings.Repeat("a", 129), strings.Repeat("a/", 127) + "a", strings.Repeat("a/", 128) + "a",
	"sha256:" + strings.Repeat("0", 64), "sha256:" + strings.Repeat("F", 64), "sha256:" + strings.Repeat("0", 63), "sha512:" + strings.Repeat("a", 128),
	"md5:" + strings.Repeat("0", 32), "sha256", "sha256:", ":", "a:b",
}

func check(t *testing.T, s string) {
	t.Helper()
	if got, want := reference.CheckName(s) == nil, len(s) <= 255 && nameRE.MatchString(s); got != want {
		t.Errorf("CheckName(%q) accepts: %v, want %v", s, got, want)
	}
	if got, want := reference.CheckProject(s) == nil, len(s) <= 255 && projectRE.MatchString(s); got != want {
		t.Errorf("CheckProject(%q) accepts: %v, want %v", s, got, want)
	}
	if got, want := reference.CheckTag(s) == nil, tagRE.MatchString(s) && !strings.HasSuffix(s, "\n"); got != want {
		t.Errorf("CheckTag(%q) accepts: %v, want %v", s, got, want)
	}
	d, err := reference.ParseDigest(s)
	if got, want := err == nil, digestRE.MatchString(s); got != want {
		t.Errorf("ParseDigest(%q) accepts: %v, want %v", s, got, want)
	}
	if err == nil {
		if d.String() != s {
			t.Errorf("ParseDigest(%q) prints %q", s, d)
		}
		if again, err := reference.FromBytes(d.Bytes()); err != nil || again != d {
			t.Errorf("%q does not survive the database: %v, %v", s, again, err)
		}
	}
}

func TestAgainstTheSpecification(t *testing.T) {
	t.Parallel()
	for _, s := range samples {
		check(t, s)
	}
}

func FuzzReferences(f *testing.F) {
	for _, s := range samples {
		f.Add(s)
	}
	f.Fuzz(check)
}

func TestErrorsShowNoControlCharacters(t *testing.T) {
	t.Parallel()
	err := reference.CheckName("evil\r\nX-Header: 1" + strings.Repeat("x", 500))
	if err == nil || strings.ContainsAny(err.Error(), "\r\n") || len(err.Error()) > 300 {
		t.Errorf("got %q", err)
	}
	err = reference.CheckTag("evil\r\nX-Header: 1" + strings.Repeat("x", 500))
	if err == nil || strings.ContainsAny(err.Error(), "\r\n") || len(err.Error()) > 300 {
		t.Errorf("got %q", err)
	}
}
