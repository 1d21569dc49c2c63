package machine

import (
	"context"
	"errors"
	"strings"
	"time"

	"berth/agent/api"
	"berth/appliance/guestinfo"
)

const (
	publishEvery = 10 * time.Second
	publishTime  = 20 * time.Second
	publishAgain = 10 * time.Minute // what has not changed: a restart of Tools may have lost it
)

// publication is what vSphere's users see of the appliance without any login: in
// the virtual machine's advanced parameters. It is public.
func publication(s api.Status) [][2]string {
	first := func(list []string) string {
		if len(list) == 0 {
			return ""
		}
		return list[0]
	}
	health := s.Health
	for i, p := range s.Problems {
		if i == 0 {
			health += ": " + strings.Join(strings.Fields(p.Text), " ")
		}
	}
	if len(health) > 200 {
		health = strings.ToValidUTF8(health[:200], "")
	}
	return [][2]string{
		{"guestinfo.berth.url", first(s.Registry)},
		{"guestinfo.berth.version", s.Version},
		{"guestinfo.berth.fingerprint", s.Fingerprint},
		{"guestinfo.berth.phase", s.Phase},
		{"guestinfo.berth.health", health},
		{"guestinfo.berth.address", strings.Join(s.Addresses, " ")},
	}
}

// publish tells vSphere what has changed, until ctx ends. It is best effort: a host
// may forbid it, and elsewhere than on vSphere there is nobody to tell.
func (m *Machine) publish(ctx context.Context) error {
	said := map[string]string{}
	var told bool
	var last time.Time
	return every(ctx, publishEvery, func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, publishTime)
		defer cancel()
		s, err := m.Status(ctx)
		if err != nil {
			return
		}
		if m.o.Now().Sub(last) > publishAgain {
			said, last = map[string]string{}, m.o.Now()
		}
		for _, pair := range publication(s) {
			key, value := pair[0], pair[1]
			if have, ok := said[key]; ok && have == value {
				continue
			}
			err := m.o.System.Publish(ctx, key, value)
			if err == nil {
				said[key], told = value, false
				continue
			}
			if !told && !errors.Is(err, guestinfo.ErrUnavailable) {
				told = true
				m.o.Log.Warn("cannot publish guestinfo variables", "err", err)
			}
			return // the others would fare no better
		}
	})
}
