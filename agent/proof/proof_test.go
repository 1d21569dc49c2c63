package proof_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/agent/proof"
	"berth/appliance/fault"
	"berth/appliance/guestinfo"
)

// tool stands in the place of vmware-rpctool: variables are files beside it.
func tool(t *testing.T) (path string, set func(value string), get func() string) {
	t.Helper()
	dir := t.TempDir()
	path = filepath.Join(dir, "vmware-rpctool")
	script := `#!/bin/sh
dir=` + dir + `
case "$1" in
"info-get "*) f="$dir/${1#info-get }"; [ -s "$f" ] || { echo "No value found"; exit 1; }; cat "$f" ;;
"info-set "*) rest="${1#info-set }"; printf %s "${rest#* }" > "$dir/${rest%% *}" ;;
*) exit 2 ;;
esac
`
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, proof.Variable)
	set = func(value string) {
		if err := os.WriteFile(file, []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return path, set, func() string { b, _ := os.ReadFile(file); return string(b) }
}

func TestProof(t *testing.T) {
	path, set, get := tool(t)
	dir, now := t.TempDir(), time.Date(2026, 11, 21, 18, 0, 0, 0, time.UTC)
	p := proof.New(dir, guestinfo.New(path), func() time.Time { return now })
	set("left over from the last time")
	code, err := p.Begin(t.Context())
	if err != nil || len(code.Reveal()) != 19 {
		t.Fatalf("code %q, %v", code.Reveal(), err)
	}
	if ok, err := p.Shown(t.Context()); ok || !fault.Is(err, fault.Invalid) || strings.Contains(err.Error(), code.Reveal()) {
		t.Errorf("another value: %v, %v", ok, err)
	}
	set("")
	if ok, err := p.Shown(t.Context()); ok || err != nil {
		t.Errorf("no value: %v, %v", ok, err)
	}
	// The machine was off in between, as the vSphere Client wants it.
	p = proof.New(dir, guestinfo.New(path), func() time.Time { return now })
	now = now.Add(30 * time.Minute)
	if again, err := p.Begin(t.Context()); err != nil || again != code {
		t.Errorf("after a restart the code is another one: %v", err)
	}
	set(strings.ToLower(code.Reveal()) + "\n")
	if ok, err := p.Shown(t.Context()); !ok || err != nil {
		t.Errorf("the code: %v, %v", ok, err)
	}
	if get() != "" {
		t.Errorf("the variable still is %q", get())
	}
	set(code.Reveal())
	if ok, err := p.Shown(t.Context()); ok || !fault.Is(err, fault.Precondition) {
		t.Errorf("the code a second time: %v, %v", ok, err)
	}
	if next, err := p.Begin(t.Context()); err != nil || next == code {
		t.Errorf("the next code is the same: %v", err)
	}
}

func TestCodesEnd(t *testing.T) {
	path, set, _ := tool(t)
	now := time.Date(2026, 11, 21, 18, 0, 0, 0, time.UTC)
	p := proof.New(t.TempDir(), guestinfo.New(path), func() time.Time { return now })
	code, err := p.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	set(code.Reveal())
	for _, moved := range []time.Duration{proof.Life, -time.Minute} {
		then := now
		now = now.Add(moved)
		if ok, err := p.Shown(t.Context()); ok || !fault.Is(err, fault.Precondition) {
			t.Errorf("after %s: %v, %v", moved, ok, err)
		}
		now = then
	}
}

func TestNoGuestinfo(t *testing.T) {
	p := proof.New(t.TempDir(), guestinfo.New(filepath.Join(t.TempDir(), "nothing")), nil)
	if _, err := p.Begin(t.Context()); !fault.Is(err, fault.Unavailable) || fault.Of(err).Hint == "" {
		t.Errorf("got %v", err)
	}
}
