package machine

import "context"

// System is what only the operating system of the appliance can do. Live is the
// real one; tests have one that remembers what it was asked for, since no test may
// reboot the machine that it runs on.
type System interface {
	// Reboot and PowerOff begin at once.
	Reboot(ctx context.Context) error
	PowerOff(ctx context.Context) error
}
