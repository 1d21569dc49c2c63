// Package step has the steps of the first boot: credentials first, so that a
// machine on which something fails later can be logged in to with the password that
// somebody has chosen, and with no other; then disks, settings, network, time,
// database, certificate, and the services at last.
//
// A step is told what to do by the answers and looks for itself what is there
// already, on the disks above all: one that comes from an earlier appliance is
// taken over, never formatted.
package step

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"berth/appliance/systemd"
	"berth/firstboot"
)

// A Machine is what the steps work on: this one.
type Machine struct {
	// Systemd starts units.
	Systemd *systemd.Conn
}

// All are the steps in their order.
func (m Machine) All() []firstboot.Step {
	return []firstboot.Step{
		{Name: "credentials", Title: "Set the passwords", Limit: 2 * time.Minute, Apply: m.credentials},
		{Name: "disks", Title: "Prepare the disks", Limit: time.Hour, EveryBoot: true, Apply: m.disks},
		{Name: "settings", Title: "Write the settings", Limit: time.Minute, Apply: m.settings},
		{Name: "network", Title: "Set up the network", Limit: 2 * time.Minute, Apply: m.network},
		{Name: "access", Title: "Set up firewall and SSH", Limit: 10 * time.Minute, Apply: m.access},
		{Name: "time", Title: "Set up the time", Limit: time.Minute, Apply: m.time},
		{Name: "database", Title: "Prepare the database", Limit: time.Hour, Apply: m.database},
		// After the database, which takes seconds: an IPv6 address comes that much later
		// than an IPv4 one, and a certificate made without it would be another one within
		// the minute in which people compare its fingerprint.
		{Name: "certificate", Title: "Make the certificate", Limit: time.Minute, Apply: m.certificate},
		{Name: "services", Title: "Start the services", Limit: time.Hour, EveryBoot: true, Apply: m.services},
	}
}

// run calls a program with nothing of this process's environment, and something on
// its standard input if need be; its complaint becomes the error.
func run(ctx context.Context, stdin io.Reader, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	return runCommand(ctx, cmd, stdin)
}

func runCommand(ctx context.Context, cmd *exec.Cmd, stdin io.Reader) (string, error) {
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/"}
	cmd.Dir = "/"
	cmd.Stdin = stdin
	cmd.WaitDelay = 2 * time.Second
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	err := cmd.Run()
	if err == nil {
		return out.String(), nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	text := strings.Join(strings.FieldsFunc(strings.TrimSpace(complaint.String()), func(r rune) bool { return r == '\n' }), "; ")
	return "", fmt.Errorf("%s: %w: %s", cmd.Path, err, text[max(0, len(text)-600):])
}
