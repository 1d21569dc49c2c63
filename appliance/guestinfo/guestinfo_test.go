package guestinfo_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/appliance/fault"
	"berth/appliance/guestinfo"
)

// fake is vmware-rpctool, with a file for each variable.
const fake = `#!/bin/sh
[ "$1" = --cmd ] && shift
set -f
verb=${1%% *} rest=${1#* }
cd "$(dirname "$0")"
case $verb in
info-get) [ -f "$rest" ] || { echo "No value found" >&2; exit 1; }; cat "$rest"; echo ;;
info-set) key=${rest%% *}; printf %s "${rest#* }" >"$key" ;;
*) exit 1 ;;
esac
`

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSetAndGet(t *testing.T) {
	for _, name := range []string{"vmware-rpctool", "vmtoolsd"} {
		c := guestinfo.New(write(t, t.TempDir(), name, fake))
		if _, err := c.Get(t.Context(), "guestinfo.berth.url"); !fault.Is(err, fault.NotFound) {
			t.Errorf("before: %v", err)
		}
		for _, value := range []string{"https://x", `a b  c&<>"'$%\` + "`id`\nsecond line", strings.Repeat("x", 100_000)} {
			if err := c.Set(t.Context(), "guestinfo.berth.url", value); err != nil {
				t.Fatal(err)
			}
			if got, err := c.Get(t.Context(), "guestinfo.berth.url"); err != nil || got != value {
				t.Errorf("%s: got %.60q, %v", name, got, err)
			}
		}
	}
}

func TestUnavailable(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]*guestinfo.Client{
		"no tool": guestinfo.New(filepath.Join(dir, "none")), "no virtual machine of VMware's": guestinfo.New(write(t, dir, "refusing", "#!/bin/sh\necho must be run inside a virtual machine\nexit 255\n")),
	} {
		if _, err := c.Get(t.Context(), "guestinfo.x"); !errors.Is(err, guestinfo.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	c := guestinfo.New(write(t, t.TempDir(), "vmware-rpctool", fake))
	for _, key := range []string{"", "x", "guestinfo.a b", "guestinfo.$(id)", "guestinfo." + strings.Repeat("x", 200)} {
		if _, err := c.Get(t.Context(), key); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", key, err)
		}
	}
	for _, value := range []string{strings.Repeat("x", guestinfo.MaxValue+1), "a\x00b"} {
		if err := c.Set(t.Context(), "guestinfo.x", value); !fault.Is(err, fault.Invalid) {
			t.Errorf("%.10q: %v", value, err)
		}
	}
	forbidden := guestinfo.New(write(t, t.TempDir(), "vmware-rpctool", "#!/bin/sh\necho \"$1\"\nexit 1\n"))
	if err := forbidden.Set(t.Context(), "guestinfo.x", "value-of-it"); !fault.Is(err, fault.Unavailable) || strings.Contains(err.Error(), "value-of-it") {
		t.Errorf("got %v", err)
	}
}

// A tool that answers without end is cut off, not stored.
func TestEndless(t *testing.T) {
	c := guestinfo.New(write(t, t.TempDir(), "vmware-rpctool", "#!/bin/sh\nhead -c 20000000 /dev/zero | tr '\\0' x\n"))
	if _, err := c.Get(t.Context(), "guestinfo.x"); !fault.Is(err, fault.TooLarge) {
		t.Errorf("got %v", err)
	}
}
