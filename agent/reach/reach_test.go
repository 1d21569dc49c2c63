package reach_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"berth/agent/reach"
	"berth/appliance/fault"
)

func TestPingThisMachine(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "::1", "localhost"} {
		got, err := reach.Ping(t.Context(), addr)
		if errors.Is(err, os.ErrPermission) {
			t.Skip("raw sockets are for root")
		}
		if err != nil && strings.Contains(err.Error(), "cannot assign") {
			t.Logf("%s is not configured here", addr)
			continue
		}
		if err != nil || !strings.Contains(got, "answered 3 of 3") {
			t.Errorf("%s: %q, %v", addr, got, err)
		}
	}
}

func TestPingNobody(t *testing.T) {
	_, err := reach.Ping(t.Context(), "does-not-exist.invalid")
	if !fault.Is(err, fault.NotFound) && !fault.Is(err, fault.Unavailable) {
		t.Errorf("got %v", err)
	}
}

func TestLookup(t *testing.T) {
	got, err := reach.Lookup(t.Context(), "localhost")
	if err != nil || !strings.Contains(got, "127.0.0.1") {
		t.Errorf("%q, %v", got, err)
	}
	_, err = reach.Lookup(t.Context(), "does-not-exist.invalid")
	if !fault.Is(err, fault.NotFound) && !fault.Is(err, fault.Unavailable) {
		t.Errorf("got %v", err)
	}
}
