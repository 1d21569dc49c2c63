package clock_test

import (
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/appliance/clock"
	"berth/appliance/fault"
	"berth/appliance/setting"
)

// root is a system's directory with two zones.
func root(t *testing.T) string {
	dir := t.TempDir()
	for name, text := range map[string]string{"Europe/Berlin": "TZif2...", "UTC": "TZif2...", "tzdata.zi": "# version\nR x\nZ Europe/Berlin 1\n1 x\nZ America/Lima 1\nZ EST 1\nL UTC Etc/UTC\n"} {
		path := filepath.Join(dir, "usr/share/zoneinfo", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func file(dir, name string) string {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return string(b)
}

func TestWrite(t *testing.T) {
	t.Parallel()
	dir := root(t)
	const servers, link = "etc/systemd/timesyncd.conf.d/60-berth.conf", "etc/systemd/network/10-berth.network.d/60-time.conf"
	for i, c := range []struct {
		t                 setting.Time
		zone, ntp, useNTP string
	}{
		{setting.Time{}, "../usr/share/zoneinfo/UTC", "", ""},
		{setting.Time{Zone: "Europe/Berlin", NTP: []string{"ntp.example.com", "2001:db8::1"}}, "../usr/share/zoneinfo/Europe/Berlin", "NTP=ntp.example.com 2001:db8::1\n", "UseNTP=no"},
		{setting.Time{Zone: "UTC"}, "../usr/share/zoneinfo/UTC", "", ""},
	} {
		for _, again := range []bool{false, true} {
			if changed, err := clock.Write(dir, c.t); err != nil || changed == again {
				t.Errorf("%d, again %v: %v, %v", i, again, changed, err)
			}
		}
		if got, err := os.Readlink(filepath.Join(dir, "etc/localtime")); err != nil || got != c.zone {
			t.Errorf("%d: %s, %v", i, got, err)
		}
		if got := file(dir, servers); !strings.HasSuffix(got, c.ntp) || c.ntp == "" && got != "" {
			t.Errorf("%d: %q", i, got)
		}
		if got := file(dir, link); !strings.Contains(got, c.useNTP) || c.useNTP == "" && got != "" {
			t.Errorf("%d: %q", i, got)
		}
	}
	for _, zone := range []string{"Europe/Nowhere", "../etc/passwd", "/etc/passwd", "tzdata.zi", "Europe", "Europe/../UTC", "a b", "UTC\n"} {
		if _, err := clock.Write(dir, setting.Time{Zone: zone}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", zone, err)
		}
	}
	if _, err := clock.Write(dir, setting.Time{NTP: []string{"a\nb"}}); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
	if zones, err := clock.Zones(dir); err != nil || !slices.Equal(zones, []string{"UTC", "America/Lima", "Europe/Berlin"}) {
		t.Errorf("%v, %v", zones, err)
	}
}

func TestCurrent(t *testing.T) {
	t.Parallel()
	s, err := clock.Current(t.Context())
	if err != nil || s.Zone == "" || s.Text == "" || time.Since(s.Now) > time.Minute {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestMachineClock sets zone and servers of the container in which tests/boot runs it.
func TestMachineClock(t *testing.T) {
	if os.Getenv("BERTH_TEST_MACHINE") == "" {
		t.Skip("skipped: it changes the machine's time zone; tests/boot runs it in a container")
	}
	if err := clock.Apply(t.Context(), setting.Time{Zone: "Europe/Berlin", NTP: []string{"192.0.2.1"}}); err != nil {
		t.Fatal(err)
	}
	s, err := clock.Current(t.Context())
	if err != nil || s.Zone != "Europe/Berlin" || s.Running || !strings.Contains(s.Text, "container") {
		t.Errorf("%+v, %v", s, err)
	}
}

// A server answers with what change makes of a right answer of a server that is
// ahead by some time.
func server(t *testing.T, ahead time.Duration, change func([]byte) []byte) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 128)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			if a := change(answer(b[:n], time.Now().Add(ahead))); a != nil {
				c.WriteTo(a, from)
			}
		}
	}()
	_, port, _ := net.SplitHostPort(c.LocalAddr().String())
	return port
}

// answer is what a server of stratum 2 says at a time.
func answer(q []byte, at time.Time) []byte {
	a := make([]byte, 48)
	a[0], a[1] = 4<<3|4, 2
	binary.BigEndian.PutUint32(a[4:], 1<<14) // a root delay of 250 ms
	copy(a[24:], q[40:48])
	stamp := uint64(at.Unix()+2_208_988_800)<<32 | uint64(at.Nanosecond())<<32/1e9
	binary.BigEndian.PutUint64(a[32:], stamp)
	binary.BigEndian.PutUint64(a[40:], stamp)
	return a
}

func TestServers(t *testing.T) {
	t.Parallel()
	for _, ahead := range []time.Duration{0, 90 * time.Minute, -3 * time.Second, 20 * 365 * 24 * time.Hour} { // the last is beyond 2036
		a, err := clock.TestAt(t.Context(), "localhost", server(t, ahead, func(b []byte) []byte { return b }))
		if err != nil || (a.Offset-ahead).Abs() > a.RTT || a.Stratum != 2 || a.RTT <= 0 || a.RTT > 3*time.Second {
			t.Errorf("%v ahead: %+v, %v", ahead, a, err)
		}
		want := map[bool]string{true: "is right", false: "behind"}[ahead == 0]
		if ahead < 0 {
			want = "ahead"
		}
		if !strings.Contains(a.Text, want) {
			t.Errorf("%v ahead: %s", ahead, a.Text)
		}
	}
	set := func(i int, v byte) func([]byte) []byte { return func(b []byte) []byte { b[i] = v; return b } }
	for name, c := range map[string]struct {
		change func([]byte) []byte
		kind   fault.Kind
		why    string
	}{
		"silent":             {func([]byte) []byte { return nil }, fault.Unavailable, "does not answer"},
		"too short":          {func(b []byte) []byte { return b[:47] }, fault.Unavailable, "does not answer"},
		"another's question": {set(24, 0xff), fault.Unavailable, "does not answer"},
		"no server":          {set(0, 4<<3|3), fault.Unavailable, "does not answer"},
		"not synchronized":   {set(0, 3<<6|4<<3|4), fault.Precondition, "not synchronized"},
		"stratum 16":         {set(1, 16), fault.Precondition, "not synchronized"},
		"denied":             {func(b []byte) []byte { b[1] = 0; copy(b[12:], "DENY"); return b }, fault.Precondition, "not allowed"},
		"kissed":             {func(b []byte) []byte { b[1] = 0; copy(b[12:], "\x1b[2J"); return b }, fault.Precondition, `code "\x1b[2J"`},
		"version 1":          {set(0, 1<<3|4), fault.Precondition, "version 1"},
		"no time":            {func(b []byte) []byte { clear(b[40:48]); return b }, fault.Precondition, "no time"},
		"far from a clock":   {func(b []byte) []byte { b[9] = 20; return b }, fault.Precondition, "20s wrong"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := clock.TestAt(t.Context(), "127.0.0.1", server(t, 0, c.change))
			if !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.why) || !strings.Contains(err.Error(), "127.0.0.1") {
				t.Error(err)
			}
		})
	}
	if _, err := clock.TestAt(t.Context(), "no-such-host.invalid", "123"); !fault.Is(err, fault.Unavailable) {
		t.Error(err)
	}
	if _, err := clock.TestAt(t.Context(), "127.0.0.1", "9"); !fault.Is(err, fault.Unavailable) { // nobody there
		t.Error(err)
	}
}

func FuzzReadAnswer(f *testing.F) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	cookie := [8]byte{1, 2, 3, 4, 5, 6, 7, 8}
	q := make([]byte, 48)
	copy(q[40:], cookie[:])
	f.Add(answer(q, now))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 32 {
			copy(b[24:], cookie[:]) // else nothing is looked at
		}
		if a, err := clock.ReadAnswer(cookie, b, now); err == nil && (a.Stratum < 1 || a.Stratum > 15 || a.RTT < 0) {
			t.Errorf("%x: %+v", b, a)
		}
	})
}
