package boot_test

import (
	"testing"
	"time"

	"berth/tests/berthtest"
	"berth/tests/boot"
)

// administrator is the registry's administrator on the machines of these tests.
var administrator = berthtest.Login{User: "admin", Password: "Correct-Horse-7"}

// properties are enough for a first boot that asks nobody.
func properties() map[string]string {
	return map[string]string{
		"appliance.root_password":    "Root-Horse-7",
		"appliance.console_password": "Console-Horse-7",
		"registry.admin_password":    administrator.Password,
		"network.hostname":           "berth.berth.test",
		"install.unattended":         "True",
	}
}

// started is a machine that has done its first boot, unattended, and serves.
func started(t *testing.T, o boot.Options) *boot.Machine {
	t.Helper()
	if o.Environment == nil {
		o.Environment = properties()
	}
	m := boot.Start(t, o)
	serving(t, m)
	return m
}

// serving waits until the machine has done what this boot needs.
func serving(t *testing.T, m *boot.Machine) {
	t.Helper()
	m.Active(t, "berth-firstboot.service", time.Minute)
	m.Serving(t, time.Minute)
}
