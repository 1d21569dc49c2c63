package boot_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"berth/tests/boot"
)

// idleTime is how long an appliance is left alone before its memory is measured: what starting took is given back by then.
const idleTime = 15 * time.Second

// idleLimit is how much memory all services and PostgreSQL may take then.
const idleLimit = 250 << 20

// BenchmarkFirstLogin is the time from switching on an appliance with blank disks to the first docker login, that of its next
// boot, and what it takes when nobody uses it.
//
//	go test ./tests/boot -run ^$ -bench FirstLogin -benchtime 1x -v
func BenchmarkFirstLogin(b *testing.B) {
	var first, second time.Duration
	var memory map[string]int64
	for range b.N {
		m := boot.New(b, boot.Options{Environment: properties()})
		first += untilLogin(b, m)
		m.PowerOff(b)
		second += untilLogin(b, m)
		time.Sleep(idleTime)
		memory = m.Memory()
		m.PowerOff(b)
	}
	var sum int64
	for what, n := range memory {
		b.Logf("%5.1f MiB  %s", float64(n)/(1<<20), what)
		sum += n
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(first.Seconds()/float64(b.N), "s/first-login")
	b.ReportMetric(second.Seconds()/float64(b.N), "s/second-boot")
	b.ReportMetric(float64(sum)/(1<<20), "MiB-idle")
	if sum > idleLimit {
		b.Errorf("idle, the appliance takes %d MiB", sum>>20)
	}
}

func untilLogin(t testing.TB, m *boot.Machine) time.Duration {
	began := time.Now()
	m.On(t)
	m.Wait(t, "the administrator logs in", 2*time.Minute, func() error { return logIn(t, m) })
	return time.Since(began)
}

// logIn is what docker login does: it gets a token with the administrator's password.
func logIn(t testing.TB, m *boot.Machine) error {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+m.Address().String()+"/service/token?service=harbor-registry&account=admin", nil)
	if err != nil {
		return err
	}
	req.SetBasicAuth(administrator.User, administrator.Password)
	res, err := m.Client(nil).Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the answer is %s", res.Status)
	}
	return nil
}
