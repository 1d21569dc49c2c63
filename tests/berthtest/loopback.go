package berthtest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
)

// LoopbackAddress puts an address of the documentation network 192.0.2.0/24 (RFC 5737) on the loopback interface and
// returns it with a function that takes it away again. Docker and others treat the whole of 127.0.0.0/8 as insecure,
// so only on another address does a test show that they check certificates.
func LoopbackAddress() (addr string, remove func(), err error) {
	if os.Geteuid() != 0 {
		return "", nil, fmt.Errorf("cannot add an address to lo: not root")
	}
	// Adding fails when the address is there: whoever succeeds owns it, so tests in parallel do not share one.
	for range 20 {
		addr = fmt.Sprintf("192.0.2.%d", 1+rand.IntN(254))
		out, err := exec.Command("ip", "addr", "add", addr+"/32", "dev", "lo").CombinedOutput()
		if err == nil {
			return addr, func() { exec.Command("ip", "addr", "del", addr+"/32", "dev", "lo").Run() }, nil
		}
		// "File exists" before iproute2 6.x, "Address already assigned" since.
		if text := string(out); !strings.Contains(text, "exists") && !strings.Contains(text, "already") {
			return "", nil, fmt.Errorf("cannot add an address to lo: %v: %s", err, strings.TrimSpace(text))
		}
	}
	return "", nil, fmt.Errorf("cannot find an address of 192.0.2.0/24 that is not on lo yet")
}
