package machine

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"sync/atomic"
	"time"

	"berth/appliance/cert"
	"berth/appliance/setting"
)

// ConsoleCertificate is what the console shows browsers: the appliance's
// certificate, or before there is one (the first boot makes it, on the data disk) a
// temporary one, which gives way without a restart.
type ConsoleCertificate struct {
	m         *Machine
	temporary *cert.Reloader
	real      atomic.Pointer[cert.Reloader] // nil: there is none yet
}

// lookEvery is how often the appliance's certificate is looked for.
const lookEvery = 3 * time.Second

// ConsoleCertificate makes sure that there is something to serve.
func (m *Machine) ConsoleCertificate(ctx context.Context) (*ConsoleCertificate, error) {
	c := &ConsoleCertificate{m: m}
	dir := m.path(setting.StateDir, "tls")
	names := addresses()
	if host, err := os.Hostname(); err == nil {
		if probe := (setting.Settings{Data: "x", HTTPS: ":443", Hostnames: []string{host}}); probe.Check() == nil {
			names = append(names, host)
		}
	}
	if _, err := cert.Ensure(dir, names); err != nil {
		// Whatever is there is of no use: a temporary certificate can be made anew.
		if err := os.RemoveAll(dir); err != nil {
			return nil, err
		}
		if _, err := cert.Ensure(dir, nil); err != nil {
			return nil, err
		}
	}
	var err error
	if c.temporary, err = cert.NewReloader(m.path(setting.StateDir, "tls", cert.ServerFile), m.path(setting.StateDir, "tls", cert.KeyFile), m.o.Log); err != nil {
		return nil, err
	}
	c.look()
	return c, nil
}

// look takes the appliance's certificate as soon as there is one.
func (c *ConsoleCertificate) look() {
	s, err := c.m.Settings()
	if err != nil || s.Certificate == "" {
		return
	}
	if r, err := cert.NewReloader(c.m.path(s.Certificate), c.m.path(s.PrivateKey), c.m.o.Log); err == nil {
		c.real.Store(r)
	}
}

// Run follows the files until ctx ends.
func (c *ConsoleCertificate) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for c.real.Load() == nil {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			c.look()
		}
	}
	return c.real.Load().Run(ctx)
}

// Temporary reports whether it is not the appliance's.
func (c *ConsoleCertificate) Temporary() bool { return c.real.Load() == nil }

// Served is the certificate that is shown now.
func (c *ConsoleCertificate) Served() *tls.Certificate {
	if r := c.real.Load(); r != nil {
		return r.Certificate()
	}
	return c.temporary.Certificate()
}

// Listen makes TLS of a listener.
func (c *ConsoleCertificate) Listen(l net.Listener) net.Listener {
	return tls.NewListener(l, &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.Served(), nil },
	})
}
