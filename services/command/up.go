package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"berth/appliance/durable"
	"berth/appliance/fault"
	"berth/appliance/logger"
	"berth/appliance/secret"
	"berth/appliance/setting"
	"berth/appliance/unit"
	"berth/services/account"
)

// listenFlags adds the flags of the front door.
func (a *app) listenFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&a.flags.HTTPS, "https", a.flags.HTTPS, "`address` to serve TLS on, host:port")
	f.StringVar(&a.flags.HTTP, "http", "", "`address` to serve without TLS on (default: none)")
	f.StringVar(&a.flags.Metrics, "metrics", "", "loopback `address` for Prometheus, host:port, or off (default "+defaultMetrics+")")
	f.StringArrayVar(&a.flags.Hostnames, "hostname", nil, "one more `name` or address for the certificate; may be repeated")
}

func (a *app) upCommand() *cobra.Command {
	var passwordFile string
	c := &cobra.Command{
		Use: "up", Short: "Run a whole registry here, with a private PostgreSQL", Args: cobra.NoArgs, GroupID: "run",
		Long: "Runs every service in one process, with a private PostgreSQL on a unix socket.\n" +
			"The first start makes a CA, a certificate and an administrator with a random\n" +
			"password; later starts find everything below --data again. Ctrl-C stops it.",
		Example: "  berth up --data ./data\n" +
			"  berth up --https 0.0.0.0:443 --hostname registry.example.org",
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.settings(c)
			if err != nil {
				return err
			}
			err = a.up(c.Context(), s, passwordFile)
			if locked, ok := errors.AsType[*lockedError](err); ok {
				_, err = fmt.Fprintln(a.stdout, locked)
			}
			return err
		},
	}
	a.settingFlags(c)
	a.listenFlags(c)
	c.Flags().StringVar(&passwordFile, "admin-password-file", "", "`file` with the administrator's password, for the first start (default: a random one)")
	must(c.MarkFlagFilename("admin-password-file"))
	return c
}

// up runs everything until ctx ends.
func (a *app) up(ctx context.Context, s setting.Settings, passwordFile string) error {
	if err := prepareDirs(s); err != nil {
		return err
	}
	unlock, err := lock(s.Data)
	if err != nil {
		return err
	}
	defer unlock()
	_, err = os.Stat(s.AdminPassword())
	fresh := err != nil
	password, err := firstPassword(s, passwordFile)
	if err != nil {
		return err
	}
	p := newProcess(a.stderr, s, "berth")
	unit.LimitMemory(p.log)
	stopLogs, err := p.startLogs(ctx)
	if err != nil {
		return err
	}
	defer stopLogs()
	stopLooking, err := p.startLooking(ctx, "")
	if err != nil {
		return err
	}
	defer stopLooking()

	// The database outlives the services: they write until the end.
	databaseCtx, stopDatabase := context.WithCancel(context.WithoutCancel(ctx))
	databaseDone := make(chan error, 1)
	databaseUp := make(chan struct{})
	if s.Database == "" {
		go func() {
			databaseDone <- cluster(s, logger.For(p.log, "postgres")).Run(databaseCtx, func() { close(databaseUp) })
		}()
	} else {
		close(databaseUp)
		databaseDone <- nil
	}
	defer func() { stopDatabase(); <-databaseDone }()
	select {
	case err := <-databaseDone:
		databaseDone <- nil
		if err != nil {
			return err
		}
	case <-databaseUp:
	case <-ctx.Done():
		return nil
	}
	return a.upServices(ctx, p, password, fresh)
}

// upServices prepares the database, then starts all services and says so.
func (a *app) upServices(ctx context.Context, p *process, password secret.Text, fresh bool) error {
	s := p.settings
	n, err := openMigrated(ctx, s, p.log, 2)
	if err != nil {
		return err
	}
	made, err := n.ensureFirstThings(ctx, password)
	n.close()
	if err != nil {
		return err
	}
	if fresh && !made {
		// The database had an administrator before this node came: what was
		// written down is nobody's password.
		if err := os.Remove(s.AdminPassword()); err != nil {
			return err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	list := services()
	up := make(chan string, len(list))
	for _, svc := range list {
		g.Go(func() error {
			err := svc.run(ctx, p.as(svc.name), func() { up <- svc.name })
			switch {
			case ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)):
				return nil // asked to stop, and did
			case err == nil:
				return fmt.Errorf("%s stopped unasked", svc.name)
			}
			return fmt.Errorf("%s: %w", svc.name, err)
		})
	}
	g.Go(func() error {
		for range list {
			select {
			case <-up:
			case <-ctx.Done():
				return nil
			case <-time.After(time.Minute):
				return errors.New("the services were not ready within a minute")
			}
		}
		noteURL(s.Data, publicURL(s))
		a.welcome(s)
		return nil
	})
	err = g.Wait()
	if err == nil && isTerminal(a.stderr) {
		fmt.Fprintln(a.stderr, "stopped")
	}
	return err
}

// firstPassword gives the administrator's password for a first start. It is
// written down before the account is made, so that a cut-off start loses nothing.
func firstPassword(s setting.Settings, file string) (secret.Text, error) {
	if b, err := os.ReadFile(s.AdminPassword()); err == nil {
		return secret.Text(strings.TrimSpace(string(b))), nil
	}
	password := secret.Random(20)
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return "", fault.Wrap(fault.Invalid, err, "cannot read the password").On("--admin-password-file")
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, 4096))
		if err != nil {
			return "", fault.Wrap(fault.Invalid, err, "cannot read the password").On("--admin-password-file")
		}
		password = secret.Text(strings.TrimRight(string(b), "\r\n"))
		if err := account.CheckStrength(password.Reveal()); err != nil {
			return "", err
		}
	}
	return password, durable.WriteFile(s.AdminPassword(), []byte(password.Reveal()+"\n"), 0o600)
}

// publicURL is what users type. A server on loopback or on every address is
// reached by name.
func publicURL(s setting.Settings) string {
	scheme, address, usual := "https", s.HTTPS, "443"
	if address == "" {
		scheme, address, usual = "http", s.HTTP, "80"
	}
	host, port, _ := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	everywhere := host == "" || ip != nil && ip.IsUnspecified()
	switch {
	case len(s.Hostnames) > 0:
		host = s.Hostnames[0]
	case everywhere && s.Network.Hostname != "":
		host = s.Network.Hostname
	case everywhere && s.Certificate != "" && ownAddress() != "":
		host = ownAddress() // localhost is in our own certificates alone
	case host == "" || ip != nil && (ip.IsLoopback() || ip.IsUnspecified()):
		host = "localhost"
	}
	if port == usual {
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		return scheme + "://" + host
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

// ownAddress is an address by which others reach this machine, IPv4 rather than
// IPv6; "" if it has none.
func ownAddress() string {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return ""
	}
	best := ""
	for _, a := range list {
		p, err := netip.ParsePrefix(a.String())
		switch {
		case err != nil || !p.Addr().IsGlobalUnicast():
		case p.Addr().Is4():
			return p.Addr().String()
		case best == "":
			best = p.Addr().String()
		}
	}
	return best
}

// welcome tells a person what to do next. Its last line is for programs too.
func (a *app) welcome(s setting.Settings) {
	url := publicURL(s)
	_, host, _ := strings.Cut(url, "://")
	fmt.Fprintf(a.stdout, "\n  log in     docker login %s --username admin\n", host)
	if _, err := os.Stat(s.AdminPassword()); err == nil {
		fmt.Fprintf(a.stdout, "  password   %s\n", s.AdminPassword())
	}
	if s.HTTPS != "" && s.Certificate == "" {
		fmt.Fprintf(a.stdout, "  CA         %s\n", s.CA())
		fmt.Fprintf(a.stdout, "             for docker: sudo install -D -m 644 %s /etc/docker/certs.d/%s/ca.crt\n", s.CA(), host)
	}
	fmt.Fprintf(a.stdout, "  then       docker push %s/library/IMAGE:TAG\n\nready %s\n", host, url)
}
