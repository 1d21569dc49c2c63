package network_test

import (
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"berth/appliance/fault"
	"berth/appliance/network"
	"berth/appliance/setting"
)

// inMachine skips a test that is not in the container that tests/boot makes for it.
func inMachine(t *testing.T) {
	t.Helper()
	if os.Getenv("BERTH_TEST_MACHINE") == "" {
		t.Skip("skipped: it changes the machine's network; tests/boot runs it in a container")
	}
}

// TestMachineStatic gives a container with networkd addresses, one set after the other.
func TestMachineStatic(t *testing.T) {
	inMachine(t)
	ctx := t.Context()
	for _, n := range []setting.Network{
		{Hostname: "one.example.com", Mode: "static", IP4: "192.0.2.10/24", Gateway4: "192.0.2.1", IP6: "2001:db8::10/64", Gateway6: "2001:db8::1",
			DNS: []string{"192.0.2.2", "2001:db8::2"}, Search: []string{"example.com"}},
		{Hostname: "two.example.com", Mode: "static", IP4: "198.51.100.10/24", Gateway4: "198.51.100.1", DNS: []string{"198.51.100.2"}},
		{Hostname: "two.example.com", Mode: "static", IP6: "2001:db8:1::10/64", Gateway6: "fe80::1"},
	} {
		begun := time.Now()
		if err := network.Apply(ctx, n); err != nil {
			t.Fatalf("%+v: %v", n, err)
		}
		t.Logf("applied in %v", time.Since(begun).Round(time.Millisecond))
		var s network.State
		waitFor(t, "what was applied", func() bool { // resolved hears of it a little later
			var err error
			s, err = network.Current(ctx)
			return err == nil && slices.Equal(s.DNS, n.DNS) && s.Gateway4 == n.Gateway4 && (n.Gateway6 == "" || s.Gateway6 == n.Gateway6)
		})
		if s.Hostname != n.Hostname || !slices.Equal(s.Search, n.Search) {
			t.Errorf("%+v for %+v", s, n)
		}
		// Without an IPv6 address in the settings there may be one from a router.
		for _, p := range s.Addresses {
			if text := p.String(); text != n.IP4 && text != n.IP6 && (p.Addr().Is4() || n.IP6 != "") {
				t.Errorf("it has the address %s with %+v", text, n)
			}
		}
	}
}

// TestMachineChange tries a network out on the real networkd and gets the old one back.
func TestMachineChange(t *testing.T) {
	inMachine(t)
	ctx := t.Context()
	before := setting.Network{Hostname: "berth.example.com", Mode: "static", IP4: "192.0.2.10/24", Gateway4: "192.0.2.1"}
	if err := network.Apply(ctx, before); err != nil {
		t.Fatal(err)
	}
	c := &network.Changer{Dir: t.TempDir(), Apply: network.Apply, Commit: nil, Log: slog.New(slog.DiscardHandler)}
	defer agent(t, c)()
	p, err := c.Change(ctx, before, setting.Network{Hostname: "berth.example.com", Mode: "static", IP4: "198.51.100.10/24"}, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	has := func(a string) bool {
		s, err := network.Current(ctx)
		return err == nil && s.Has(netip.MustParseAddr(a))
	}
	waitFor(t, "the new address", func() bool { return has("198.51.100.10") && !has("192.0.2.10") })
	time.Sleep(9 * time.Second) // what the change waits, and no more
	waitFor(t, "the old address", func() bool { return has("192.0.2.10") && !has("198.51.100.10") })
	waitFor(t, "the end of the change", func() bool { _, pending := c.Pending(); return !pending })
	if o, _ := c.Last(); o.ID != p.ID || o.Confirmed {
		t.Errorf("the outcome: %+v", o)
	}
}

// TestMachineDHCP needs the DHCP server and router that tests/boot puts at the other
// end of the cable.
func TestMachineDHCP(t *testing.T) {
	inMachine(t)
	if os.Getenv("BERTH_TEST_DHCP") == "" {
		t.Skip("skipped: there is no DHCP server in this network")
	}
	begun := time.Now()
	if err := network.Apply(t.Context(), setting.Network{}); err != nil {
		t.Fatal(err)
	}
	t.Logf("an address in %v", time.Since(begun).Round(time.Millisecond))
	var s network.State
	waitFor(t, "all that the network gives", func() bool {
		var err error
		s, err = network.Current(t.Context())
		return err == nil && s.Source4 == "dhcp" && s.Gateway4 != "" && s.Gateway6 != "" && len(s.DNS) > 0 && slices.ContainsFunc(s.Addresses, func(p netip.Prefix) bool { return p.Addr().Is6() })
	})
	err := network.Apply(t.Context(), setting.Network{Mode: "static", IP4: s.Gateway4 + "/24"})
	if !fault.Is(err, fault.Conflict) {
		t.Errorf("the address of another machine: %v", err)
	}
	if after, err := network.Current(t.Context()); err != nil || after.Source4 != "dhcp" {
		t.Errorf("after an address that was refused: %+v, %v", after, err)
	}
	if err := network.TestGateway(t.Context(), netip.MustParseAddr(s.Gateway4)); err != nil {
		t.Error(err)
	}
}
