package step

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"berth/appliance/cert"
	"berth/appliance/durable"
	"berth/appliance/setting"
	"berth/firstboot"
)

// keyGroup may read the server's key: the registry serves with it.
const keyGroup = "berth-registry"

// certificate puts the administrator's certificate in place, or one of our own CA
// for every name and address that the machine has.
func (m Machine) certificate(_ context.Context, w *firstboot.Work) (string, error) {
	s := w.Answers.Settings
	all := names(s)
	if a := w.Answers; a.Certificate != "" {
		r, err := cert.Supply(s.TLS(), a.Certificate, a.Chain, a.PrivateKey.Reveal(), a.KeyPassphrase, cert.KeyGroup(keyGroup), cert.ForNames(all...))
		if err != nil {
			return "", err
		}
		for _, text := range r.Warnings {
			w.Warn("certificate: %s", text)
		}
		return "the one that was given, SHA-256 " + cert.Fingerprint(r.Certificate), nil
	}
	r, err := cert.Ensure(s.TLS(), all, cert.KeyGroup(keyGroup))
	if err != nil {
		return "", err
	}
	if ca, err := os.ReadFile(filepath.Join(s.TLS(), cert.CAFile)); err == nil {
		if err := durable.WriteFile(s.CA(), ca, 0o644); err != nil {
			return "", err
		}
	}
	return "SHA-256 " + cert.Fingerprint(r.Certificate), nil
}

// names are what the certificate is for: the names of the settings, the machine's
// own, and its addresses.
func names(s setting.Settings) []string {
	all := append(slices.Clone(s.Hostnames), s.Network.Hostname)
	// A machine's odd own name must not spoil the certificate.
	if host, err := os.Hostname(); err == nil && firstboot.CheckHostname(host) == nil {
		all = append(all, host)
	}
	if list, err := net.InterfaceAddrs(); err == nil {
		for _, a := range list {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().IsGlobalUnicast() {
				all = append(all, p.Addr().String())
			}
		}
	}
	return slices.DeleteFunc(all, func(n string) bool { return n == "" || n == "localhost" || n == "(none)" })
}
