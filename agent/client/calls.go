package client

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"berth/agent/api"
	"berth/appliance/secret"
	"berth/appliance/setting"
)

// About is what strangers may know.
func (c *Client) About(ctx context.Context) (api.About, error) {
	return get[api.About](ctx, c, "/about")
}

// Status is the appliance at a glance.
func (c *Client) Status(ctx context.Context) (api.Status, error) {
	return get[api.Status](ctx, c, "/status")
}

// Health makes all checks.
func (c *Client) Health(ctx context.Context) (api.Health, error) {
	return get[api.Health](ctx, c, "/health")
}

// Services gives the appliance's units.
func (c *Client) Services(ctx context.Context) ([]api.Service, error) {
	return get[[]api.Service](ctx, c, "/services")
}

// Act starts, stops or restarts a service, and gives its state then.
func (c *Client) Act(ctx context.Context, service, action string) (api.Service, error) {
	return send[api.Service](ctx, c, http.MethodPost, segment("/services/%s/", service)+url.PathEscape(action), nil)
}

// Network is what was set, and how it is.
func (c *Client) Network(ctx context.Context) (api.Network, error) {
	return get[api.Network](ctx, c, "/network")
}

// ChangeNetwork applies settings that are taken back unless they are confirmed.
func (c *Client) ChangeNetwork(ctx context.Context, n setting.Network) (api.Pending, error) {
	return send[api.Pending](ctx, c, http.MethodPut, "/network", n)
}

// ConfirmNetwork keeps the change; an empty id is the one that is pending.
func (c *Client) ConfirmNetwork(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodPost, "/network/confirm", api.Confirm{ID: id}, nil)
}

// RevertNetwork takes the change back now.
func (c *Client) RevertNetwork(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/network/revert", nil, nil)
}

// RestoreAccess gives the network back to DHCP and opens the firewall for the
// console: for whoever sits at the VM's console and cannot get in any more.
func (c *Client) RestoreAccess(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/network/restore", nil, nil)
}

// Names are what clients call the appliance.
func (c *Client) Names(ctx context.Context) (api.Names, error) {
	return get[api.Names](ctx, c, "/names")
}

// SetNames changes the names beside the machine's own.
func (c *Client) SetNames(ctx context.Context, names []string) (api.Names, error) {
	return send[api.Names](ctx, c, http.MethodPut, "/names", api.Names{Names: names})
}

// Time is what was set, and how it is.
func (c *Client) Time(ctx context.Context) (api.Time, error) { return get[api.Time](ctx, c, "/time") }

// SetTime changes the zone and the servers.
func (c *Client) SetTime(ctx context.Context, t setting.Time) (api.Time, error) {
	return send[api.Time](ctx, c, http.MethodPut, "/time", t)
}

// TestTime asks a server for the time; "": those of the settings.
func (c *Client) TestTime(ctx context.Context, server string) ([]api.TimeAnswer, error) {
	return send[[]api.TimeAnswer](ctx, c, http.MethodPost, "/time/test", api.TimeTest{Server: server})
}

// Firewall gives the networks that may reach each port.
func (c *Client) Firewall(ctx context.Context) (setting.Firewall, error) {
	return get[setting.Firewall](ctx, c, "/firewall")
}

// SetFirewall changes them. force is for shutting out the caller's own address.
func (c *Client) SetFirewall(ctx context.Context, f setting.Firewall, force bool) (setting.Firewall, error) {
	return send[setting.Firewall](ctx, c, http.MethodPut, "/firewall?force="+strconv.FormatBool(force), f)
}

// SSH is whether sshd runs, and for whom.
func (c *Client) SSH(ctx context.Context) (api.SSH, error) { return get[api.SSH](ctx, c, "/ssh") }

// SetSSH changes that.
func (c *Client) SetSSH(ctx context.Context, s api.SetSSH) (api.SSH, error) {
	return send[api.SSH](ctx, c, http.MethodPut, "/ssh", s)
}

// SetPassword changes the password of console (the user admin at port 5480), root
// (of the machine) or registry (the user admin of the registry).
func (c *Client) SetPassword(ctx context.Context, account string, password secret.Text) error {
	return c.call(ctx, http.MethodPut, segment("/passwords/%s", account), api.SetPassword{Password: password.Reveal()}, nil)
}

// Verify checks a password of admin (the console's) or root. The fault is
// Unauthenticated if it is wrong, TooMany after too many wrong ones.
func (c *Client) Verify(ctx context.Context, user string, password secret.Text) error {
	return c.call(ctx, http.MethodPost, "/passwords/verify", api.Login{Username: user, Password: password.Reveal()}, nil)
}

// Certificates are the one that is served, and the authority behind it.
func (c *Client) Certificates(ctx context.Context) (api.Certificates, error) {
	return get[api.Certificates](ctx, c, "/certificates")
}

// CA gives the appliance's authority in PEM.
func (c *Client) CA(ctx context.Context) (pem []byte, err error) {
	return get[[]byte](ctx, c, "/certificates/ca")
}

// RequestCertificate makes a key, and a request for it in PEM.
func (c *Client) RequestCertificate(ctx context.Context, names []string) (pem []byte, err error) {
	return send[[]byte](ctx, c, http.MethodPost, "/certificates/csr", api.CertificateRequest{Names: names})
}

// UploadCertificate puts a certificate in place that an administrator has.
func (c *Client) UploadCertificate(ctx context.Context, u api.UploadCertificate) (api.Certificates, error) {
	return send[api.Certificates](ctx, c, http.MethodPost, "/certificates/upload", u)
}

// RenewCertificate makes a new one of the appliance's own now.
func (c *Client) RenewCertificate(ctx context.Context) (api.Certificates, error) {
	return send[api.Certificates](ctx, c, http.MethodPost, "/certificates/renew", nil)
}

// ResetCertificate goes back to the appliance's own authority.
func (c *Client) ResetCertificate(ctx context.Context) (api.Certificates, error) {
	return send[api.Certificates](ctx, c, http.MethodPost, "/certificates/reset", nil)
}

// Disks are the disks by their roles, and their limits.
func (c *Client) Disks(ctx context.Context) (api.Disks, error) {
	return get[api.Disks](ctx, c, "/disks")
}

// SetDisks changes the limits.
func (c *Client) SetDisks(ctx context.Context, d setting.Disks) (api.Disks, error) {
	return send[api.Disks](ctx, c, http.MethodPut, "/disks", d)
}

// Grow makes a role's file system as large as its disk.
func (c *Client) Grow(ctx context.Context, role string) (api.Disk, error) {
	return send[api.Disk](ctx, c, http.MethodPost, segment("/disks/%s/grow", role), nil)
}

// ReplaceDisk takes another disk for a role whose own one is lost.
func (c *Client) ReplaceDisk(ctx context.Context, role, device string) (api.Disks, error) {
	return send[api.Disks](ctx, c, http.MethodPost, segment("/disks/%s/replace", role), api.DiskReplacement{Device: device})
}

// Proxy is the proxy for outgoing connections.
func (c *Client) Proxy(ctx context.Context) (api.Proxy, error) {
	return get[api.Proxy](ctx, c, "/proxy")
}

// SetProxy changes it.
func (c *Client) SetProxy(ctx context.Context, p api.Proxy) (api.Proxy, error) {
	return send[api.Proxy](ctx, c, http.MethodPut, "/proxy", p)
}

// TestProxy tries to reach a URL through it.
func (c *Client) TestProxy(ctx context.Context, t api.ProxyTest) (api.Tested, error) {
	return send[api.Tested](ctx, c, http.MethodPost, "/proxy/test", t)
}

// Syslog are the collectors of log messages.
func (c *Client) Syslog(ctx context.Context) (api.Syslog, error) {
	return get[api.Syslog](ctx, c, "/syslog")
}

// SetSyslog changes them.
func (c *Client) SetSyslog(ctx context.Context, s api.Syslog) (api.Syslog, error) {
	return send[api.Syslog](ctx, c, http.MethodPut, "/syslog", s)
}

// TestSyslog sends a test message to a collector.
func (c *Client) TestSyslog(ctx context.Context, name string) (api.Tested, error) {
	return send[api.Tested](ctx, c, http.MethodPost, "/syslog/test", api.SyslogTest{Name: name})
}

// Bundles are the support bundles, the newest first.
func (c *Client) Bundles(ctx context.Context) ([]api.Bundle, error) {
	return get[[]api.Bundle](ctx, c, "/support-bundles")
}

// CreateBundle begins to make one.
func (c *Client) CreateBundle(ctx context.Context) (api.Bundle, error) {
	return send[api.Bundle](ctx, c, http.MethodPost, "/support-bundles", nil)
}

// Bundle is the state of one.
func (c *Client) Bundle(ctx context.Context, id string) (api.Bundle, error) {
	return get[api.Bundle](ctx, c, segment("/support-bundles/%s", id))
}

// DownloadBundle gives the content of one: tar, compressed with gzip. The caller
// closes it.
func (c *Client) DownloadBundle(ctx context.Context, id string) (io.ReadCloser, error) {
	return c.open(ctx, http.MethodGet, segment("/support-bundles/%s/content", id), nil)
}

// DeleteBundle removes one.
func (c *Client) DeleteBundle(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, segment("/support-bundles/%s", id), nil, nil)
}

// Configuration is all settings, as YAML that ApplyConfiguration takes.
func (c *Client) Configuration(ctx context.Context) (yaml []byte, err error) {
	return get[[]byte](ctx, c, "/configuration")
}

// ValidateConfiguration says what applying a configuration would change, or
// everything that is wrong with it.
func (c *Client) ValidateConfiguration(ctx context.Context, yaml string) (api.Applied, error) {
	return send[api.Applied](ctx, c, http.MethodPost, "/configuration/validate", yaml)
}

// ApplyConfiguration applies what is different in a configuration.
func (c *Client) ApplyConfiguration(ctx context.Context, yaml string) (api.Applied, error) {
	return send[api.Applied](ctx, c, http.MethodPost, "/configuration/apply", yaml)
}

// Power plans a reboot or a shutdown.
func (c *Client) Power(ctx context.Context, action string, p api.Power) (api.PowerState, error) {
	return send[api.PowerState](ctx, c, http.MethodPost, segment("/power/%s", action), p)
}

// CancelPower takes a planned reboot or shutdown back.
func (c *Client) CancelPower(ctx context.Context) error {
	return c.call(ctx, http.MethodDelete, "/power", nil, nil)
}

// Setup is where the first boot stands, and what it was told so far.
func (c *Client) Setup(ctx context.Context) (api.Setup, error) {
	return get[api.Setup](ctx, c, "/setup")
}

// CheckSetup gives everything that is wrong with the answers, joined; nil if
// nothing is.
func (c *Client) CheckSetup(ctx context.Context, a api.Answers) error {
	return c.call(ctx, http.MethodPost, "/setup/check", a, nil)
}

// ApplySetup begins the first boot with the answers.
func (c *Client) ApplySetup(ctx context.Context, a api.Answers) error {
	return c.call(ctx, http.MethodPost, "/setup/apply", a, nil)
}

// SetupRequest makes a key for the certificate, and a request for it in PEM.
func (c *Client) SetupRequest(ctx context.Context, names []string) (pem []byte, err error) {
	return send[[]byte](ctx, c, http.MethodPost, "/setup/csr", api.CertificateRequest{Names: names})
}

// Logs gives the newest lines, the oldest first. source is journal or berth (the
// log service); component "" is all.
func (c *Client) Logs(ctx context.Context, source, component string, lines int) ([]api.Line, error) {
	v := url.Values{"source": {source}, "lines": {strconv.Itoa(lines)}}
	if component != "" {
		v.Set("component", component)
	}
	return get[[]api.Line](ctx, c, "/logs?"+v.Encode())
}

// Audit gives the newest changes, the newest first.
func (c *Client) Audit(ctx context.Context, entries int) ([]api.Event, error) {
	return get[[]api.Event](ctx, c, "/audit?entries="+strconv.Itoa(entries))
}

// OpenAPI is the document of the API.
func (c *Client) OpenAPI(ctx context.Context) (json []byte, err error) {
	return get[[]byte](ctx, c, "/openapi.json")
}
