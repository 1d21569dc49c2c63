package boot_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"berth/appliance/diskrole"
	"berth/tests/boot"
)

const settings = `data: /storage/data
run: /run/berth
https: ":443"
http: ":80"
redirect_http: true
certificate: /storage/data/tls/server.crt
private_key: /storage/data/tls/server.key
database: host=/run/postgresql user=berth dbname=berth
logs: {dir: /storage/log/berth, journal: "on"}
`

// provision does by hand what first boot does.
func provision(t *testing.T, m *boot.Machine) {
	t.Helper()
	for role, dir := range map[diskrole.Role]string{diskrole.Data: "data", diskrole.Database: "database", diskrole.Log: "log"} {
		dev := m.Device(t, role)
		if _, err := m.Try("blkid", "-L", role.Label()); err != nil {
			m.Command(t, "mkfs.ext4", "-q", "-F", "-L", role.Label(), dev)
		}
		m.Command(t, "mount", dev, "/storage/"+dir)
	}
	m.Command(t, "systemd-tmpfiles", "--create", "--prefix=/storage")
	m.Command(t, "systemctl", "start", "berth-storage.target")
	if m.File("/storage/database/pgdata/PG_VERSION") == "" {
		m.Command(t, "runuser", "-u", "postgres", "--", "/usr/lib/berth/postgresql/initdb", "-D", "/storage/database/pgdata", "-A", "peer", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--data-checksums")
	}
	m.Command(t, "systemctl", "start", "berth-postgres.service")
	if _, err := m.Try("/usr/lib/berth/postgresql/psql", "-h", "/run/postgresql", "-U", "berth", "-d", "berth", "-c", "select 1"); err != nil {
		m.Command(t, "/usr/lib/berth/postgresql/psql", "-h", "/run/postgresql", "-U", "postgres", "-d", "postgres", "-c", "CREATE ROLE berth LOGIN", "-c", "CREATE DATABASE berth OWNER berth")
	}
	if _, err := m.Input(settings, "tee", "/etc/berth/appliance.yaml"); err != nil {
		t.Fatal(err)
	}
	if out, err := m.Input("Correct-Horse-7\n", "berth", "admin", "init", "--password-file", "-"); err != nil {
		t.Fatal(out, err)
	}
	if m.File("/storage/data/tls/server.crt") == "" {
		m.Command(t, "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj", "/CN=x",
			"-addext", "subjectAltName=IP:"+m.Address().String(), "-keyout", "/storage/data/tls/server.key", "-out", "/storage/data/tls/server.crt")
		m.Command(t, "chgrp", "berth-registry", "/storage/data/tls/server.key")
		m.Command(t, "chmod", "640", "/storage/data/tls/server.key")
	}
	m.Command(t, "systemctl", "start", "berth.target")
}

// The services start once there are disks, keys, a schema and a certificate, and say that all is well.
func TestServices(t *testing.T) {
	t.Parallel()
	m := boot.Start(t, boot.Options{})
	provision(t, m)
	m.Serving(t, time.Minute)
	m.Command(t, "berth", "status")
	m.Wait(t, "the registry's log has that it is ready", 30*time.Second, func() error {
		if out, err := m.Try("berth", "logs", "--component", "registry"); err != nil || !strings.Contains(out, "ready") {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}
