package machine

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"berth/agent/api"
	"berth/appliance/cert"
	"berth/appliance/durable"
	"berth/appliance/fault"
	"berth/appliance/secret"
	"berth/appliance/setting"
)

// keyGroup may read the key of the certificate: the registry serves it.
const keyGroup = "berth-registry"

// names are all by which clients may call the appliance: they belong into its
// certificate.
func (m *Machine) names(s setting.Settings) []string {
	names := slices.Clone(s.Hostnames)
	host, err := os.Hostname()
	if m.o.Root != "" || err != nil {
		host = s.Network.Hostname
	}
	for _, n := range []string{s.Network.Hostname, host} {
		if n == "" || n == "localhost" || slices.Contains(names, n) {
			continue
		}
		// A machine's odd own name must not spoil the certificate.
		if probe := (setting.Settings{Data: "x", HTTPS: ":443", Hostnames: []string{n}}); probe.Check() == nil {
			names = append(names, n)
		}
	}
	return append(names, addresses()...)
}

// options are how the appliance keeps its certificate.
func (m *Machine) certOptions(s setting.Settings) []cert.Option {
	o := []cert.Option{cert.ForNames(m.names(s)...)}
	if m.o.Root == "" {
		o = append(o, cert.KeyGroup(keyGroup))
	}
	return o
}

// certificatesReady says whether the data disk is there: a certificate that was
// made on the system disk, under the place where that disk should be, would be
// another one, and hide the right one's loss.
func (m *Machine) certificatesReady(s setting.Settings) error {
	if _, err := os.Stat(m.below(s.TLS())); err != nil {
		return fault.Wrap(fault.Precondition, err, "the certificates' directory is not there").
			WithHint("the first boot makes it on the data disk: see its state (berth-agent status)")
	}
	return nil
}

// ensureCertificate makes a new certificate of our own if one is needed: for names
// that it does not have, or since it ends. It reports whether it did. Names that
// are not used any more stay: an address that a DHCP server takes away for a minute
// must not make two certificates.
func (m *Machine) ensureCertificate(_ context.Context, s setting.Settings) (changed bool, err error) {
	if m.certificatesReady(s) != nil {
		return false, nil // the first boot makes the first one
	}
	names := m.names(s)
	if c, err := m.served(s); err == nil && time.Until(c.NotAfter) > renewBefore && !slices.ContainsFunc(names, func(n string) bool { return c.VerifyHostname(bracket(n)) != nil }) {
		return false, m.publishCA(s)
	}
	r, err := cert.Ensure(m.below(s.TLS()), names, m.certOptions(s)...)
	if err != nil {
		return false, err
	}
	if r.Changed != "" {
		m.o.Log.Info("made a server certificate", "reason", r.Changed, "fingerprint", cert.Fingerprint(r.Certificate), "until", r.Certificate.NotAfter.Format(time.DateOnly))
	}
	return r.Changed != "", m.publishCA(s)
}

// renewBefore is how long before its end package cert makes a new certificate.
const renewBefore = 30 * 24 * time.Hour

// publishCA puts the authority where users and the registry's API find it.
func (m *Machine) publishCA(s setting.Settings) error {
	ca, err := os.ReadFile(filepath.Join(m.below(s.TLS()), cert.CAFile))
	if err != nil {
		return nil // the certificate was supplied, and its CA is the administrator's business
	}
	if have, err := os.ReadFile(m.below(s.CA())); err == nil && string(have) == string(ca) {
		return nil
	}
	return durable.WriteFile(m.below(s.CA()), ca, 0o644)
}

// served is the certificate that the registry serves.
func (m *Machine) served(s setting.Settings) (*x509.Certificate, error) {
	return readCertificate(filepath.Join(m.below(s.TLS()), cert.ServerFile))
}

func readCertificate(path string) (*x509.Certificate, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fault.New(fault.Invalid, "%s holds no certificate", path)
	}
	return x509.ParseCertificate(block.Bytes)
}

func certificateNames(c *x509.Certificate) []string {
	names := some(slices.Clone(c.DNSNames))
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	return names
}

func wireCertificate(c *x509.Certificate) api.Certificate {
	return api.Certificate{Subject: c.Subject.String(), Issuer: c.Issuer.String(), Names: certificateNames(c),
		From: c.NotBefore.UTC(), Until: c.NotAfter.UTC(), Fingerprint: cert.Fingerprint(c)}
}

// Certificates are the one that is served, and the authority behind it.
func (m *Machine) Certificates(context.Context) (api.Certificates, error) {
	s, err := m.Settings()
	if err != nil {
		return api.Certificates{}, broken(err)
	}
	var w api.Certificates
	r, err := cert.Look(m.below(s.TLS()), m.certOptions(s)...)
	if fault.Is(err, fault.NotFound) {
		c, err := readCertificate(m.path(setting.StateDir, "tls", cert.ServerFile))
		if err != nil {
			return w, fault.Wrap(fault.NotFound, err, "there is no certificate yet")
		}
		w.Server, w.Temporary = wireCertificate(c), true
		return w, nil
	}
	if err != nil {
		return w, err
	}
	w.Server, w.Supplied, w.Warnings = wireCertificate(r.Certificate), r.Supplied, some(r.Warnings)
	if r.CA != nil {
		ca := wireCertificate(r.CA)
		w.CA = &ca
	}
	request, _, err := cert.Pending(m.below(s.TLS()))
	w.Request = request != ""
	return w, err
}

// CA is the appliance's own authority in PEM.
func (m *Machine) CA(context.Context) (string, error) {
	s, err := m.Settings()
	if err != nil {
		return "", broken(err)
	}
	b, err := os.ReadFile(filepath.Join(m.below(s.TLS()), cert.CAFile))
	if err != nil {
		return "", fault.Wrap(fault.NotFound, err, "the appliance has no authority of its own").
			WithHint("before the first boot there is none; and with a certificate that was supplied, ask who has issued it")
	}
	return string(b), nil
}

// RequestCertificate makes a key, and a request for it (PKCS #10, PEM).
func (m *Machine) RequestCertificate(_ context.Context, names []string) (string, error) {
	s, err := m.Settings()
	if err != nil {
		return "", broken(err)
	}
	if err := m.certificatesReady(s); err != nil {
		return "", err
	}
	if len(names) == 0 {
		names = m.names(s)
	}
	return cert.Request(m.below(s.TLS()), names)
}

// UploadCertificate serves a certificate that an administrator has.
func (m *Machine) UploadCertificate(ctx context.Context, u api.UploadCertificate) (api.Certificates, error) {
	return m.certificate(ctx, func(s setting.Settings) error {
		_, err := cert.Supply(m.below(s.TLS()), u.Certificate, u.Chain, u.Key, secret.Text(u.Passphrase), m.certOptions(s)...)
		return err
	})
}

// RenewCertificate makes a new certificate of the appliance's own authority now.
func (m *Machine) RenewCertificate(ctx context.Context) (api.Certificates, error) {
	return m.certificate(ctx, func(s setting.Settings) error {
		if r, err := cert.Look(m.below(s.TLS())); err == nil && r.Supplied {
			return fault.New(fault.Precondition, "the certificate was supplied: only who has issued it can renew it").
				WithHint("upload a new one, or reset to the appliance's own authority")
		}
		_, err := cert.Own(m.below(s.TLS()), m.names(s), m.certOptions(s)...)
		return err
	})
}

// ResetCertificate goes back from a supplied certificate to the appliance's own.
func (m *Machine) ResetCertificate(ctx context.Context) (api.Certificates, error) {
	return m.certificate(ctx, func(s setting.Settings) error {
		_, err := cert.Own(m.below(s.TLS()), m.names(s), m.certOptions(s)...)
		return err
	})
}

// certificate changes the certificate. Who serves it sees that within seconds, and
// open connections stay as they are.
func (m *Machine) certificate(ctx context.Context, change func(setting.Settings) error) (api.Certificates, error) {
	m.settings.Lock()
	defer m.settings.Unlock()
	s, err := m.Settings()
	if err != nil {
		return api.Certificates{}, broken(err)
	}
	if err := m.certificatesReady(s); err != nil {
		return api.Certificates{}, err
	}
	if err := change(s); err != nil {
		return api.Certificates{}, err
	}
	if err := m.publishCA(s); err != nil {
		return api.Certificates{}, err
	}
	return m.Certificates(ctx)
}

// followCertificate keeps the certificate right, until ctx ends: at once, then
// every minute, for addresses come and go.
func (m *Machine) followCertificate(ctx context.Context) error {
	failed := ""
	return every(ctx, time.Minute, func(ctx context.Context) {
		m.settings.Lock()
		defer m.settings.Unlock()
		s, err := m.Settings()
		if err == nil && m.Phase() == api.Ready {
			_, err = m.ensureCertificate(ctx, s)
		}
		if err != nil && err.Error() != failed {
			failed = err.Error()
			m.o.Log.Error("cannot keep the certificate right", "err", err)
		}
	})
}

// every calls f at once and then again and again, until ctx ends.
func every(ctx context.Context, pause time.Duration, f func(context.Context)) error {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		f(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// fingerprint is the SHA-256 of what browsers are shown; "" if it cannot be read.
func (m *Machine) fingerprint(s setting.Settings) string {
	c, err := m.served(s)
	if err != nil {
		c, err = readCertificate(m.path(setting.StateDir, "tls", cert.ServerFile))
	}
	if err != nil {
		return ""
	}
	return strings.ToUpper(cert.Fingerprint(c))
}

// repairAuthority reads the certificates of an authority in whatever form they were
// pasted. A private key has no business there.
func repairAuthority(text string) (string, error) {
	pemText, err := cert.Repair(text)
	if err != nil {
		return "", fault.Of(err).On("ca_certificate")
	}
	rest, count := []byte(pemText), 0
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return "", fault.New(fault.Invalid, "it has a %s; only certificates belong here", strings.ToLower(block.Type)).On("ca_certificate")
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return "", fault.Wrap(fault.Invalid, err, "a certificate in it is damaged").On("ca_certificate")
		}
		count++
	}
	if count == 0 {
		return "", fault.New(fault.Invalid, "it holds no certificate in PEM").On("ca_certificate")
	}
	return pemText, nil
}
