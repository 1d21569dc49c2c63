package agent_test

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"berth/agent/api"
	"berth/agent/client"
	"berth/appliance/diskrole"
	"berth/appliance/fault"
	"berth/appliance/secret"
	"berth/appliance/setting"
	"berth/tests/berthtest"
	"berth/tests/boot"
)

func clock(a appliance) {
	t := ask[api.Time](a, "time", "set", "--zone", "Europe/Berlin", "--ntp", a.Net(1).String())
	if t.Zone != "Europe/Berlin" || !slices.Equal(t.Settings.NTP, []string{a.Net(1).String()}) {
		a.t.Errorf("%+v", t)
	}
	if out := a.Command(a.t, "date", "+%Z"); !strings.HasPrefix(out, "CE") {
		a.t.Errorf("date says %s", out)
	}
	// Nobody serves the time there.
	if out, err := a.Try("berth-agent", "time", "test"); err == nil {
		a.t.Errorf("%s", out)
	}
	if out, err := a.Try("berth-agent", "time", "set", "--zone", "Europe/Nowhere"); err == nil || !strings.Contains(err.Error(), "time.zone") {
		a.t.Errorf("%s %v", out, err)
	}
	a.agent("time", "set", "--zone", "UTC", "--ntp", "")
}

// push uploads a small blob, and gives the answer.
func (a appliance) push() (int, string) {
	a.t.Helper()
	content := []byte(fmt.Sprint("blob ", time.Now().UnixNano()))
	sum := sha256.Sum256(content)
	return a.ask("POST", "/v2/library/small/blobs/uploads/?digest=sha256:"+hex.EncodeToString(sum[:]), "application/octet-stream", string(content))
}

// ask calls the registry as its administrator, and gives the answer.
func (a appliance) ask(method, path, kind, body string) (int, string) {
	a.t.Helper()
	r, err := http.NewRequestWithContext(a.t.Context(), method, "https://"+a.Address().String()+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	r.SetBasicAuth("admin", registryPassword)
	r.Header.Set("Content-Type", kind)
	c := a.Client(nil)
	defer c.CloseIdleConnections()
	resp, err := c.Do(r)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

// A disk that fills up closes the registry for pushes before it is full, says why, and opens it again.
func disks(a appliance) {
	if code, body := a.push(); code != 201 {
		a.t.Fatalf("%d %s", code, body)
	}
	d := ask[api.Disks](a, "disks")
	i := slices.IndexFunc(d.Disks, func(x api.Disk) bool { return x.Role == "data" })
	filler := int64(float64(d.Disks[i].Bytes)*0.955) - int64(d.Disks[i].Used)
	a.Command(a.t, "fallocate", "-l", fmt.Sprint(filler), "/storage/data/filler")
	a.Wait(a.t, "the registry refuses pushes", 20*time.Second, func() error {
		if code, body := a.push(); code < 400 || !strings.Contains(body, "data disk is") {
			return fmt.Errorf("%d %s", code, body)
		}
		return nil
	})
	s := ask[api.Disks](a, "disks")
	if !strings.Contains(s.ReadOnly, "the data disk is") || s.Disks[i].State != "read-only" {
		a.t.Errorf("%+v", s)
	}
	// A little room is not enough: else each deletion would open it for one push.
	a.Command(a.t, "truncate", "-s", fmt.Sprint(filler-int64(d.Disks[i].Bytes)/100*2), "/storage/data/filler")
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); { // two looks at the disks
		if code, _ := a.push(); code < 400 {
			a.t.Fatalf("it is open again too early: %d", code)
		}
	}
	a.Command(a.t, "rm", "/storage/data/filler")
	a.Wait(a.t, "the registry takes pushes again", 20*time.Second, func() error {
		if code, body := a.push(); code != 201 {
			return fmt.Errorf("%d %s", code, body)
		}
		return nil
	})
	a.agent("disks", "set", "--warn", "70", "--read-only", "90")
	if got := ask[api.Disks](a, "disks").Settings; got != (setting.Disks{WarnPercent: 70, ReadOnlyPercent: 90}) {
		a.t.Errorf("%+v", got)
	}
	if out, err := a.Try("berth-agent", "disks", "set", "--warn", "95"); err == nil {
		a.t.Errorf("it warns after it is too late: %s", out)
	}
	a.agent("disks", "set", "--warn", "0", "--read-only", "0")
}

func grow(a appliance) {
	const sysResource = 1 << 24 // capabilities(7); the kernel wants it for a file system that is mounted
	for line := range strings.Lines(a.File("/proc/1/status")) {
		if text, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps, err := strconv.ParseUint(strings.TrimSpace(text), 16, 64)
			if err == nil && caps&sysResource == 0 {
				a.t.Skip("this computer may not enlarge file systems that are mounted (CAP_SYS_RESOURCE)")
			}
		}
	}
	size := func() uint64 {
		d := ask[api.Disks](a, "disks").Disks
		return d[slices.IndexFunc(d, func(x api.Disk) bool { return x.Role == "data" })].Bytes
	}
	before := size()
	a.Grow(a.t, diskrole.Data, boot.DiskSize+1<<30)
	if d := ask[api.Disk](a, "disks", "grow", "data"); d.Bytes < before+900<<20 || d.Text != "" {
		a.t.Errorf("%d became %+v", before, d)
	}
	if d := ask[api.Disk](a, "disks", "grow", "data"); d.Text == "" {
		a.t.Errorf("it grows without end: %+v", d)
	}
	if out, err := a.Try("berth-agent", "disks", "grow", "system"); err == nil {
		a.t.Errorf("%s", out)
	}
}

// receiver is a collector on the clients' side: it writes what it gets, on however many connections, until a test message
// has come.
const receiver = `import select,socket,sys,time
listener=socket.create_server((sys.argv[1],int(sys.argv[2])))
conns,data=[],b''
end=time.time()+40
while time.time()<end:
    if b'test message' in data: end=min(end,time.time()+5)
    for s in select.select([listener]+conns,[],[],1)[0]:
        if s is listener:
            conns.append(s.accept()[0])
            continue
        more=s.recv(65536)
        data+=more
        if not more: conns.remove(s)
sys.stdout.write(data.decode('utf-8','replace'))`

func collector(a appliance) {
	berthtest.Program(a.t, "python3")
	got := make(chan string, 1)
	go func() {
		out, err := a.TryOutside("", "python3", "-c", receiver, a.Net(1).String(), "6601")
		got <- fmt.Sprint(out, err)
	}()
	a.agent("syslog", "add", "siem", "tcp://"+a.Net(1).String()+":6601")
	a.Wait(a.t, "the test message is sent", 30*time.Second, func() error {
		out, err := a.Try("berth-agent", "syslog", "test", "siem")
		if err != nil {
			return fmt.Errorf("%s: %w", out, err)
		}
		return nil
	})
	if text := <-got; !strings.Contains(text, "test message") {
		a.t.Errorf("the collector got %q", text)
	}
	if out, err := a.Try("berth-agent", "syslog", "test", "nosuch"); err == nil {
		a.t.Errorf("%s", out)
	}
	a.agent("syslog", "remove", "siem")
	a.ready()
}

// What was exported and is applied changes nothing; what is different is shown, and applied alone.
func configuration(a appliance) {
	exported := a.agent("config", "export")
	out, err := a.Input(exported, "berth-agent", "config", "apply", "-", "--json")
	var d api.Applied
	if err != nil || json.Unmarshal([]byte(out), &d) != nil || len(d.Changes) > 0 || len(d.Actions) > 0 || !d.Done {
		a.t.Errorf("not idempotent: %v %s", err, out)
	}
	const change = "trash_days: 3\ntime:\n  zone: Asia/Tokyo\n"
	before := a.File(setting.File)
	if out, err = a.Input(change, "berth-agent", "config", "validate", "-"); err != nil || !strings.Contains(out, "trash_days") || !strings.Contains(out, "would") || a.File(setting.File) != before {
		a.t.Errorf("%s %v", out, err)
	}
	if out, err = a.Input(change, "berth-agent", "config", "apply", "-", "--json"); err != nil || json.Unmarshal([]byte(out), &d) != nil || len(d.Changes) != 2 {
		a.t.Errorf("%s %v", out, err)
	}
	if now := a.File(setting.File); !strings.Contains(now, "Asia/Tokyo") || !strings.Contains(now, "berth.example.com") {
		a.t.Errorf("%s", now)
	}
	_, err = a.Input("trash_days: -9\nnosuch: 1\nnetwork:\n  mode: maybe\ndata: /elsewhere\n", "berth-agent", "config", "apply", "-")
	for _, field := range []string{"trash_days", "nosuch", "network.mode"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			a.t.Errorf("no fault names %s: %v", field, err)
		}
	}
	if _, err = a.Input("data: /elsewhere\n", "berth-agent", "config", "apply", "-"); err == nil || !strings.Contains(err.Error(), "data") {
		a.t.Errorf("the data may move: %v", err)
	}
	if _, err := a.Input(exported+"trash_days: 0\n", "berth-agent", "config", "apply", "-"); err != nil {
		a.t.Error(err)
	}
	a.ready()
}

func passwords(a appliance) {
	const next = "Next1-Password"
	if out, err := a.Input("short", "berth-agent", "password", "console"); err == nil {
		a.t.Errorf("%s", out)
	}
	for _, account := range []string{"console", "root", "registry"} {
		if _, err := a.Input(next+"\n", "berth-agent", "password", account); err != nil {
			a.t.Errorf("%s: %v", account, err)
		}
	}
	transport := a.Client(nil).Transport
	for user, password := range map[string]string{"admin": next, "root": next} {
		c := client.NewRemote("https://"+a.Address().String()+":5480", user, secret.Text(password), transport)
		if _, err := c.About(a.t.Context()); err != nil {
			a.t.Errorf("%s: %v", user, err)
		}
		if _, err := c.Status(a.t.Context()); err != nil {
			a.t.Errorf("%s: %v", user, err)
		}
	}
	if _, err := a.console(a.Address().String()).Status(a.t.Context()); !fault.Is(err, fault.Unauthenticated) {
		a.t.Errorf("the old password: %v", err)
	}
	if code, _ := a.push(); code != 401 {
		a.t.Errorf("the registry's old password: %d", code)
	}
	for account, password := range map[string]string{"console": consolePassword, "root": rootPassword, "registry": registryPassword} {
		if _, err := a.Input(password+"\n", "berth-agent", "password", account); err != nil {
			a.t.Errorf("%s: %v", account, err)
		}
	}
	if code, body := a.push(); code != 201 {
		a.t.Errorf("%d %s", code, body)
	}
}

// A support bundle has what one needs, and nobody's secret.
func support(a appliance) {
	text := "proxyPass-7Q"
	if _, err := a.console(a.Address().String()).SetProxy(a.t.Context(), api.Proxy{Proxy: setting.Proxy{HTTP: "http://192.0.2.1:3128", Username: "berth"}, Password: &text}); err != nil {
		a.t.Error(err)
	}
	out := filepath.Join(a.t.TempDir(), "bundle.tar.gz")
	c := a.console(a.Address().String())
	b, err := c.CreateBundle(a.t.Context())
	if err != nil {
		a.t.Fatal(err)
	}
	a.Wait(a.t, "the bundle is done", 2*time.Minute, func() error {
		if b, err = c.Bundle(a.t.Context(), b.ID); err == nil && b.State != "done" {
			err = fmt.Errorf("it is %s: %s %v", b.State, b.Doing, b.Fault)
		}
		return err
	})
	in, err := c.DownloadBundle(a.t.Context(), b.ID)
	if err != nil {
		a.t.Fatal(err)
	}
	defer in.Close()
	f, err := os.Create(out)
	if err != nil {
		a.t.Fatal(err)
	}
	defer f.Close()
	if n, err := io.Copy(f, in); err != nil || n != b.Bytes {
		a.t.Errorf("%d bytes of %d: %v", n, b.Bytes, err)
	}
	files := untar(a.t, out)
	for _, name := range []string{"manifest.json", "status.json", "appliance.yaml", "logs/berth-registry", "logs/journal", "network/firewall", "berth-status.json", "audit.jsonl"} {
		if len(files[name]) == 0 {
			a.t.Errorf("%s is empty or missing", name)
		}
	}
	key := a.File("/storage/data/keys/berth.key")
	for name, content := range files {
		for _, s := range []string{"Root1", "Console1", "Registry1", "Next1", text, "PRIVATE KEY", "$argon2id", strings.TrimSpace(key)} {
			if s != "" && strings.Contains(content, s) {
				a.t.Errorf("%s has a secret (%.9s…)", name, s)
			}
		}
	}
	if err := c.DeleteBundle(a.t.Context(), b.ID); err != nil {
		a.t.Error(err)
	}
	if list, err := c.Bundles(a.t.Context()); err != nil || slices.ContainsFunc(list, func(x api.Bundle) bool { return x.ID == b.ID }) {
		a.t.Errorf("%v, %v", list, err)
	}
	if _, err := c.SetProxy(a.t.Context(), api.Proxy{Password: new(string)}); err != nil {
		a.t.Error(err)
	}
	trail := a.agent("audit", "-n", "200")
	for _, want := range []string{"change a password", "change the firewall", "switch SSH", "renew the certificate", "create a support bundle", a.Net(1).String(), "unix socket"} {
		if !strings.Contains(trail, want) {
			a.t.Errorf("the trail does not know of %s:\n%s", want, trail)
		}
	}
}

func untar(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zipped, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(zipped); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		_, name, _ := strings.Cut(h.Name, "/")
		files[name] = string(b)
	}
}

// A change of the network counts when it is confirmed at the new address.
func network(a appliance) {
	next := a.Net(77)
	p, err := a.console(a.Address().String()).ChangeNetwork(a.t.Context(), setting.Network{Hostname: "other.example.com", Mode: "static", IP4: next.String() + "/24", Gateway4: a.Net(1).String(), DNS: []string{a.Net(1).String()}})
	if err != nil {
		a.t.Fatal(err)
	}
	if !slices.Contains(p.Addresses, next.String()) {
		a.t.Errorf("%+v", p)
	}
	moved := a.console(next.String())
	a.Wait(a.t, "the console answers at the new address", time.Minute, func() error {
		n, err := moved.Network(a.t.Context())
		if err == nil && (n.Pending == nil || !n.Pending.Applied) {
			err = errors.New("the change is not in force")
		}
		return err
	})
	if err := moved.ConfirmNetwork(a.t.Context(), p.ID); err != nil {
		a.t.Fatal(err)
	}
	a.Wait(a.t, "the settings have it, and the certificate", time.Minute, func() error {
		n, err := moved.Names(a.t.Context())
		if err != nil {
			return err
		}
		if n.Hostname != "other.example.com" || !slices.Contains(n.Certificate, "other.example.com") || !slices.Contains(n.Certificate, next.String()) || !strings.Contains(a.File(setting.File), next.String()) {
			return fmt.Errorf("%+v", n)
		}
		return nil
	})
	// Back, and taken back.
	a.agent("network", "set", "--mode", "dhcp", "--dns", "")
	a.Wait(a.t, "DHCP's address is there", time.Minute, func() error {
		n, err := a.console(a.Address().String()).Network(a.t.Context())
		if err == nil && (n.Pending == nil || !n.Pending.Applied) {
			err = errors.New("the change is not in force")
		}
		return err
	})
	a.agent("network", "revert")
	a.Wait(a.t, "the address of before is back", time.Minute, func() error {
		n, err := moved.Network(a.t.Context())
		if err == nil && n.Pending != nil {
			err = errors.New("the change is still there")
		}
		return err
	})
	a.agent("network", "restore")
	a.Wait(a.t, "DHCP's address is there for good", time.Minute, func() error {
		n, err := a.console(a.Address().String()).Network(a.t.Context())
		if err == nil && (n.Pending != nil || n.Settings.Static()) {
			err = fmt.Errorf("%+v", n)
		}
		return err
	})
	a.ready()
}

// An agent that is killed comes back, and knows who was logged in.
func killed(a appliance) {
	c := a.Client(nil)
	defer c.CloseIdleConnections()
	base := "https://" + a.Address().String() + ":5480" + api.Prefix
	body, _ := json.Marshal(api.Login{Username: "admin", Password: consolePassword})
	resp, err := c.Post(base+"/sessions", "application/json", strings.NewReader(string(body)))
	if err != nil || resp.StatusCode != 201 {
		a.t.Fatalf("%v %v", resp, err)
	}
	resp.Body.Close()
	a.Command(a.t, "systemctl", "kill", "--signal=KILL", "berth-agent")
	a.Wait(a.t, "the agent is back", 30*time.Second, func() error {
		r, err := http.NewRequest("GET", base+"/sessions/current", nil)
		if err != nil {
			return err
		}
		for _, cookie := range resp.Cookies() {
			r.AddCookie(cookie)
		}
		again, err := c.Do(r)
		if err != nil {
			return err
		}
		again.Body.Close()
		if again.StatusCode != 200 {
			return errors.New(again.Status)
		}
		return nil
	})
	a.ready()
}

func reboot(a appliance) {
	if _, err := a.Try("berth-agent", "reboot", "--in", "1h", "--reason", "a test"); err != nil {
		a.t.Error(err)
	}
	if s := ask[api.Status](a, "status"); s.Power == nil || s.Power.Action != "reboot" {
		a.t.Errorf("%+v", s.Power)
	}
	a.agent("reboot", "--cancel")
	before := a.Command(a.t, "systemctl", "show", "--property=UserspaceTimestampMonotonic")
	a.agent("reboot")
	a.Wait(a.t, "it starts again", 2*time.Minute, func() error {
		now, err := a.Try("systemctl", "show", "--property=UserspaceTimestampMonotonic")
		if err == nil && now == before {
			err = errors.New("it has not started again")
		}
		return err
	})
	a.ready()
	if code, body := a.push(); code != 201 {
		a.t.Errorf("%d %s", code, body)
	}
}

// Nobody confirms: what was comes back, by itself.
func TestNetworkComesBack(t *testing.T) {
	t.Parallel()
	a := start(t)
	before := a.File(setting.File)
	next := a.Net(78)
	began := time.Now()
	a.agent("network", "set", "--mode", "static", "--ip4", next.String()+"/24", "--gateway4", a.Net(1).String())
	a.Wait(t, "the new address answers", time.Minute, func() error {
		_, err := a.console(next.String()).About(t.Context())
		return err
	})
	a.Wait(t, "the old one is back", 4*time.Minute, func() error {
		n, err := a.console(a.Address().String()).Network(t.Context())
		if err == nil && n.Pending != nil {
			err = errors.New("the change still waits")
		}
		return err
	})
	if took := time.Since(began); took < 110*time.Second {
		t.Errorf("it was taken back after %s", took)
	}
	if now := a.File(setting.File); now != before {
		t.Errorf("the settings have changed: %s", now)
	}
	a.ready()
}
