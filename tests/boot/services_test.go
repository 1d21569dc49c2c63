package boot_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/tests/berthtest"
	"berth/tests/boot"
)

// long are the units that run for as long as the machine does.
var long = []string{"berth-postgres", "berth-logs", "berth-token", "berth-core", "berth-jobs", "berth-registry", "berth-agent"}

// mainPIDs are their processes, by name.
func mainPIDs(t *testing.T, m *boot.Machine) map[string]string {
	t.Helper()
	pids := map[string]string{}
	for _, u := range long {
		pids[u] = strings.TrimSpace(m.Command(t, "systemctl", "show", "--property=MainPID", "--value", u+".service"))
	}
	return pids
}

// Without disks nothing of ours can be started, by whatever way: what it wrote would be on the disk beneath.
func TestNothingStartsWithoutDisks(t *testing.T) {
	t.Parallel()
	m := boot.Start(t, boot.Options{NoTools: true})
	m.Active(t, "berth-agent.service", time.Minute)
	for _, unit := range []string{"berth-postgres.service", "berth-logs.service", "berth-token.service", "berth-core.service", "berth-jobs.service",
		"berth-registry.service", "berth-https.socket", "berth-http.socket", "berth-core.socket", "berth.target"} {
		if _, err := m.Try("systemctl", "start", unit); err == nil {
			t.Errorf("%s has started", unit)
		}
	}
	if out := m.Command(t, "find", "/storage", "-mindepth", "2"); out != "" {
		t.Errorf("beneath the disks there is now %s", out)
	}
}

// Each service that dies is started again within seconds, and no other notices more than that. Meanwhile clients that
// connect wait: nobody is refused.
func TestServicesComeBack(t *testing.T) {
	t.Parallel()
	m := started(t, boot.Options{})
	stop := refusals(t, m)
	before := mainPIDs(t, m)
	for _, victim := range long {
		m.Command(t, "kill", "-KILL", before[victim])
		began := time.Now()
		var now map[string]string
		m.Wait(t, victim+" is there again", time.Minute, func() error {
			if _, err := m.Try("systemctl", "is-active", victim+".service"); err != nil {
				return err
			}
			if now = mainPIDs(t, m); now[victim] == before[victim] || now[victim] == "0" {
				return fmt.Errorf("it still is %s", now[victim])
			}
			return nil
		})
		t.Logf("%s is back after %v", victim, time.Since(began).Round(10*time.Millisecond))
		for _, other := range long {
			if other != victim && now[other] != before[other] {
				t.Errorf("%s was killed, and %s is another process now", victim, other)
			}
		}
		before = now
	}
	m.Command(t, "systemctl", "restart", "berth-registry.service")
	m.Serving(t, time.Minute)
	if n, err := stop(); err != nil {
		t.Errorf("after %d requests: %v", n, err)
	} else {
		t.Logf("%d requests, and none was refused", n)
	}
	healthy(t, m)
}

// At every boot the disks come first, then the database, then what needs it, and the front door when there is something
// behind it.
func TestOrder(t *testing.T) {
	t.Parallel()
	m := started(t, boot.Options{})
	for _, when := range []string{"at the first boot", "at the second boot"} {
		since := map[string]int{}
		for _, u := range []string{"berth-firewall.service", "systemd-networkd.service", "berth-storage.target", "berth-postgres.service", "berth-logs.service", "berth-token.service", "berth-core.service",
			"berth-jobs.service", "berth-https.socket", "berth-registry.service"} {
			text := m.Command(t, "systemctl", "show", "--property=ActiveEnterTimestampMonotonic", "--value", u)
			n, err := strconv.Atoi(strings.TrimSpace(text))
			if err != nil || n == 0 {
				t.Fatalf("%s: %q %v", u, text, err)
			}
			since[u] = n
		}
		for _, pair := range [][2]string{{"berth-firewall.service", "systemd-networkd.service"}, {"berth-storage.target", "berth-postgres.service"}, {"berth-storage.target", "berth-logs.service"},
			{"berth-storage.target", "berth-https.socket"}, {"berth-postgres.service", "berth-token.service"}, {"berth-postgres.service", "berth-core.service"}, {"berth-postgres.service", "berth-jobs.service"},
			{"berth-token.service", "berth-registry.service"}, {"berth-core.service", "berth-registry.service"}, {"berth-https.socket", "berth-registry.service"}} {
			if since[pair[0]] > since[pair[1]] {
				t.Errorf("%s %s was there before %s", when, pair[1], pair[0])
			}
		}
		m.Reboot(t)
		serving(t, m)
	}
}

// healthy waits until berth status finds nothing.
func healthy(t *testing.T, m *boot.Machine) {
	t.Helper()
	m.Wait(t, "berth status finds nothing wrong", time.Minute, func() error {
		_, err := m.Try("berth", "status")
		return err
	})
}

// refusals makes new connections all the time, as clients do. stop says how many, and why one of them was refused: the
// socket is systemd's and stays open whatever happens to the registry. That an answer breaks off when the registry is
// killed is no refusal.
func refusals(t *testing.T, m *boot.Machine) (stop func() (int, error)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var count int
	var refused error
	wg.Go(func() {
		for ctx.Err() == nil && refused == nil {
			conn, err := m.Dial(ctx, "tcp", m.Address().String()+":443")
			if err == nil {
				conn.Close()
				count++
			} else if ctx.Err() == nil {
				refused = err
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
	return func() (int, error) { cancel(); wg.Wait(); return count, refused }
}

// A service that hangs is found by the watchdog, killed and started again.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	m := started(t, boot.Options{})
	for _, u := range []string{"berth-registry", "berth-token", "berth-core", "berth-logs"} {
		// A minute is too long for a test; everything else is as it is in the unit.
		m.Command(t, "mkdir", "-p", "/run/systemd/system/"+u+".service.d")
		if _, err := m.Input("[Service]\nWatchdogSec=3\n", "tee", "/run/systemd/system/"+u+".service.d/test.conf"); err != nil {
			t.Fatal(err)
		}
	}
	m.Command(t, "systemctl", "daemon-reload")
	m.Command(t, "systemctl", "restart", "berth-registry", "berth-token", "berth-core", "berth-logs")
	before := mainPIDs(t, m)
	// It is fed as long as they live.
	time.Sleep(5 * time.Second)
	if now := mainPIDs(t, m); fmt.Sprint(now) != fmt.Sprint(before) {
		t.Errorf("the watchdog has bitten services that live: %v, before %v", now, before)
	}
	for _, u := range []string{"berth-registry", "berth-token", "berth-core", "berth-logs"} {
		m.Command(t, "kill", "-STOP", before[u])
	}
	for _, u := range []string{"berth-registry", "berth-token", "berth-core", "berth-logs"} {
		m.Wait(t, u+" runs again", time.Minute, func() error {
			if now := mainPIDs(t, m); now[u] == before[u] || now[u] == "0" {
				return fmt.Errorf("it is still %s", now[u])
			}
			_, err := m.Try("systemctl", "is-active", u+".service")
			return err
		})
	}
	m.Serving(t, time.Minute)
	healthy(t, m)
}

// What a service must not, it cannot: not as its user, and not from inside its sandbox.
func TestConfinement(t *testing.T) {
	t.Parallel()
	m := started(t, boot.Options{})
	for _, user := range []string{"berth-registry", "berth-token", "berth-core", "berth-jobs", "berth-logs", "postgres", "nobody"} {
		for _, file := range []string{"/storage/data/keys/berth.key", "/storage/data/keys/token.key", "/etc/shadow", "/var/lib/berth-agent/state.json"} {
			if _, err := m.Try("runuser", "-u", user, "--", "cat", file); err == nil {
				t.Errorf("%s reads %s", user, file)
			}
		}
		if _, err := m.Try("runuser", "-u", user, "--", "test", "-w", "/run/berth/agent.sock"); err == nil {
			t.Errorf("%s may connect to the agent", user)
		}
		for _, role := range []string{"berth", "postgres"} {
			may := role == "berth" && slices.Contains([]string{"berth-registry", "berth-token", "berth-core", "berth-jobs"}, user) || role == "postgres" && user == "postgres"
			_, err := m.Try("runuser", "-u", user, "--", "/usr/lib/berth/postgresql/psql", "-h", "/run/postgresql", "-U", role, "-d", "berth", "-c", "select 1")
			if may != (err == nil) {
				t.Errorf("%s logs in to PostgreSQL as %s: %v", user, role, err)
			}
		}
	}
	for unit, keys := range map[string]string{"berth-registry": "berth.key proxy-password", "berth-token": "berth.key proxy-password token.key", "berth-core": "berth.key proxy-password",
		"berth-jobs": "berth.key proxy-password", "berth-logs": ""} {
		out, err := m.Try("ls", "/run/credentials/"+unit+".service")
		if got := strings.Join(strings.Fields(out), " "); got != keys {
			t.Errorf("%s has the keys %q, want %q (%v)", unit, got, keys, err)
		}
	}
	for _, u := range []string{"berth-registry", "berth-token", "berth-core", "berth-jobs", "berth-logs", "berth-postgres"} {
		status := m.Command(t, "cat", "/proc/"+mainPIDs(t, m)[u]+"/status")
		for _, want := range []string{"CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
			if !strings.Contains(status, want) {
				t.Errorf("%s has no %q:\n%s", u, want, status)
			}
		}
	}
	// The agent is root's, and sees what first boot has mounted. It loads no module, sets no clock, and mounts nothing.
	pid := mainPIDs(t, m)["berth-agent"]
	status := m.Command(t, "cat", "/proc/"+pid+"/status")
	var bound uint64
	for line := range strings.Lines(status) {
		if hex, ok := strings.CutPrefix(line, "CapBnd:\t"); ok {
			bound, _ = strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		}
	}
	if bound == 0 || bound&(1<<unix.CAP_SYS_MODULE|1<<unix.CAP_SYS_TIME|1<<unix.CAP_SYS_RAWIO|1<<unix.CAP_SYS_PTRACE) != 0 ||
		!strings.Contains(status, "NoNewPrivs:\t1") || !strings.Contains(status, "Seccomp:\t2") {
		t.Errorf("the agent is not confined:\n%s", status)
	}
	if mounts := m.Command(t, "cat", "/proc/"+pid+"/mounts"); !strings.Contains(mounts, " /storage/data ext4 ") {
		t.Errorf("the agent does not see the data disk:\n%s", mounts)
	}
	if out := m.Command(t, "ss", "-Hltn"); strings.Contains(out, ":5432") {
		t.Errorf("PostgreSQL listens on the network:\n%s", out)
	}
}

// While the read-only file is there pushes are refused with its text, and pulls go on.
func TestReadOnlyFile(t *testing.T) {
	t.Parallel()
	m := started(t, boot.Options{})
	r := berthtest.NewRegistry("https://"+m.Address().String(), administrator, m.Client(nil))
	i := berthtest.NewImage(1, 1000)
	r.PushImage(t, "library/app", "1", i)
	m.Command(t, "systemctl", "stop", "berth-agent.service") // it takes the file away again, for the disk is not full
	if _, err := m.Input("the data disk is 97 % full\n", "tee", "/run/berth/read-only"); err != nil {
		t.Fatal(err)
	}
	m.Wait(t, "pushes are refused", 10*time.Second, func() error {
		put := r.Do(t, "PUT", "/v2/library/app/manifests/2", i.Manifest.Data, "Content-Type", i.Manifest.MediaType)
		if put.StatusCode != http.StatusForbidden || !strings.Contains(string(put.Data), "97 % full") {
			return fmt.Errorf("%s %s", put.Status, put.Data)
		}
		return nil
	})
	if get := r.Do(t, "GET", "/v2/library/app/manifests/1", nil); get.StatusCode != http.StatusOK {
		t.Errorf("a pull: %s %s", get.Status, get.Data)
	}
	m.Command(t, "rm", "/run/berth/read-only")
	m.Wait(t, "pushes are taken again", 10*time.Second, func() error {
		if put := r.Do(t, "PUT", "/v2/library/app/manifests/2", i.Manifest.Data, "Content-Type", i.Manifest.MediaType); put.StatusCode != http.StatusCreated {
			return fmt.Errorf("%s %s", put.Status, put.Data)
		}
		return nil
	})
}
