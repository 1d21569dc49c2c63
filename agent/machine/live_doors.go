package machine

import (
	"context"
	"time"

	"berth/agent/api"
	"berth/appliance/clock"
	"berth/appliance/firewall"
	"berth/appliance/setting"
)

// ApplyTime sets the zone and the servers.
func (l *Live) ApplyTime(ctx context.Context, t setting.Time) error { return clock.Apply(ctx, t) }

// TimeNow looks at the clock.
func (l *Live) TimeNow(ctx context.Context) (api.Time, error) {
	s, err := clock.Current(ctx)
	if err != nil { // a container may not ask the kernel; the time is there all the same
		s.Text = "whether the clock is synchronised cannot be told"
	}
	return api.Time{Now: s.Now, Zone: s.Zone, Synchronized: s.Synchronized, Server: s.Server, Text: s.Text}, nil
}

// TestTime asks a server for the time.
func (l *Live) TestTime(ctx context.Context, server string) (api.TimeAnswer, error) {
	a, err := clock.Test(ctx, server)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return api.TimeAnswer{Server: server, OffsetMillis: ms(a.Offset), RTTMillis: ms(a.RTT), Stratum: a.Stratum}, err
}

// ApplyFirewall loads the packet filter's rules.
func (l *Live) ApplyFirewall(ctx context.Context, f setting.Firewall, ssh bool) error {
	return firewall.Apply(ctx, f, ssh)
}
