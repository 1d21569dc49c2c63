package command

import (
	"github.com/spf13/cobra"

	"berth/agent/api"
)

func (a *app) certificateCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "certificate", Short: "Show, renew, request or upload the certificate", Args: cobra.NoArgs, GroupID: "change",
		Example: "  berth-agent certificate ca > berth-ca.crt\n  berth-agent certificate csr registry.example.com > berth.csr\n  berth-agent certificate upload registry.pem --chain ca.pem",
		RunE: func(c *cobra.Command, _ []string) error {
			l, err := a.agent().Certificates(c.Context())
			return show(a, l, err, a.writeCertificates)
		},
	}
	c.AddCommand(
		&cobra.Command{Use: "show", Short: "Show the certificate", Args: cobra.NoArgs, RunE: c.RunE},
		&cobra.Command{Use: "ca", Short: "Print the appliance's own authority, for clients to trust", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
			return a.raw(a.agent().CA(c.Context()))
		}},
		&cobra.Command{Use: "csr [NAME]…", Short: "Make a key, and print a request for it (PKCS #10)", Args: cobra.ArbitraryArgs, RunE: func(c *cobra.Command, args []string) error {
			return a.raw(a.agent().RequestCertificate(c.Context(), args))
		}},
		a.certificateUpload(),
		&cobra.Command{Use: "renew", Short: "Make a new certificate of the appliance's own authority now", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
			l, err := a.agent().RenewCertificate(c.Context())
			return show(a, l, err, a.writeCertificates)
		}},
		&cobra.Command{Use: "reset", Short: "Go back from an uploaded certificate to the appliance's own", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
			l, err := a.agent().ResetCertificate(c.Context())
			return show(a, l, err, a.writeCertificates)
		}},
	)
	return c
}

// raw writes an answer as it is.
func (a *app) raw(b []byte, err error) error {
	if err == nil {
		_, err = a.stdout.Write(b)
	}
	return err
}

func (a *app) certificateUpload() *cobra.Command {
	var chain, key, passphrase string
	c := &cobra.Command{
		Use: "upload FILE", Short: "Serve a certificate that was issued elsewhere", Args: cobra.ExactArgs(1),
		Long: "Serves the certificate in FILE (PEM; - is standard input). Its key is in --key, or in\nFILE, or was made here by a request (csr). What is wrong with it is said, and then\nnothing changes. The registry and the console serve it within seconds; open connections\nstay.",
		RunE: func(c *cobra.Command, args []string) error {
			var u api.UploadCertificate
			for _, f := range []struct {
				path string
				to   *string
			}{{args[0], &u.Certificate}, {chain, &u.Chain}, {key, &u.Key}} {
				if f.path == "" {
					continue
				}
				var err error
				if *f.to, err = a.input(f.path); err != nil {
					return err
				}
			}
			if passphrase != "" {
				p, err := a.password(c.Context(), passphrase, "")
				if err != nil {
					return err
				}
				u.Passphrase = p.Reveal()
			}
			l, err := a.agent().UploadCertificate(c.Context(), u)
			return show(a, l, err, a.writeCertificates)
		},
	}
	c.Flags().StringVar(&chain, "chain", "", "`file` with the certificates of the authorities")
	c.Flags().StringVar(&key, "key", "", "`file` with the private key")
	c.Flags().StringVar(&passphrase, "passphrase-file", "", "`file` with the key's passphrase")
	return c
}

func (a *app) writeCertificates(l api.Certificates) error {
	from := "the appliance's own authority"
	switch {
	case l.Temporary:
		from = "temporary, until the first boot has made one"
	case l.Supplied:
		from = "uploaded"
	}
	pairs := []string{"certificate", from, "subject", l.Server.Subject, "issuer", l.Server.Issuer, "names", list(l.Server.Names), "from", at(l.Server.From), "until", at(l.Server.Until),
		"fingerprint", l.Server.Fingerprint}
	if l.CA != nil {
		pairs = append(pairs, "authority", l.CA.Subject, "its fingerprint", l.CA.Fingerprint)
	}
	if l.Request {
		pairs = append(pairs, "request", "a key waits for its certificate")
	}
	for _, w := range l.Warnings {
		pairs = append(pairs, "warning", w)
	}
	return a.facts(pairs...)
}
