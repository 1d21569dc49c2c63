package machine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"berth/agent/bundle"
	"berth/appliance/setting"
)

// maxOutput is how much of a program's output is kept in memory.
const maxOutput = bundle.MaxFile + 1<<20

// Sources are the files of a support bundle. Programs are asked for facts about
// the machine that only they can tell; none gets a shell, and none is asked for the
// arguments of processes.
func (m *Machine) Sources() []bundle.Source {
	asJSON := func(name string, ask func(context.Context) (any, error)) bundle.Source {
		return bundle.Source{Name: name, Read: func(ctx context.Context) ([]byte, error) {
			v, err := ask(ctx)
			if err != nil {
				return nil, err
			}
			return json.MarshalIndent(v, "", "  ")
		}}
	}
	program := func(name string, args ...string) bundle.Source {
		return bundle.Source{Name: name, Read: func(ctx context.Context) ([]byte, error) { return output(ctx, args...) }}
	}
	file := func(name string, paths ...string) bundle.Source {
		return bundle.Source{Name: name, Read: func(context.Context) ([]byte, error) { return m.files(paths...) }}
	}
	list := []bundle.Source{
		asJSON("status.json", func(ctx context.Context) (any, error) {
			s, err := m.Status(ctx)
			s.Code = ""
			return s, err
		}),
		asJSON("health.json", func(ctx context.Context) (any, error) { return m.Health(ctx), nil }),
		asJSON("services.json", func(ctx context.Context) (any, error) { return m.Services(ctx) }),
		asJSON("network.json", func(ctx context.Context) (any, error) { return m.Network(ctx) }),
		asJSON("disks.json", func(ctx context.Context) (any, error) { return m.Disks(ctx) }),
		asJSON("time.json", func(ctx context.Context) (any, error) { return m.Time(ctx) }),
		asJSON("certificates.json", func(ctx context.Context) (any, error) { return m.Certificates(ctx) }),
		asJSON("syslog.json", func(ctx context.Context) (any, error) { return m.Syslog(ctx) }),
		asJSON("block-devices.json", func(ctx context.Context) (any, error) { return m.o.System.ListDisks(ctx) }),
		{Name: "appliance.yaml", Read: func(ctx context.Context) ([]byte, error) {
			text, err := m.Export(ctx)
			return []byte(text), err
		}},
		file("firstboot.json", setting.StateDir+"/state.json"),
		file("audit.jsonl", setting.StateDir+"/audit.jsonl.1", setting.StateDir+"/audit.jsonl"),
		file("system/os-release", "/etc/os-release"),
		file("system/memory", "/proc/meminfo"),
		file("system/pressure", "/proc/pressure/cpu", "/proc/pressure/memory", "/proc/pressure/io"),
		file("system/mounts", "/proc/self/mounts"),
		program("system/kernel", "uname", "-a"),
		program("system/processes", "ps", "-eo", "pid,ppid,user,stat,rss,pcpu,etime,comm"),
		program("system/df", "df", "-PT"),
		program("system/df-inodes", "df", "-Pi"),
		program("system/units", "systemctl", "list-units", "--all", "--no-pager", "--no-legend", "--plain", "--full"),
		program("system/failed", "systemctl", "list-units", "--failed", "--no-pager", "--no-legend", "--plain", "--full"),
		program("system/boot-times", "systemd-analyze", "blame", "--no-pager"),
		program("network/addresses", "ip", "addr"),
		program("network/routes", "ip", "route", "show", "table", "all"),
		program("network/links", "networkctl", "status", "--all", "--no-pager"),
		program("network/dns", "resolvectl", "status", "--no-pager"),
		program("network/listening", "ss", "-tuln"),
		program("network/firewall", "nft", "list", "ruleset"),
		program("berth-status.json", "/usr/bin/berth", "status", "--config", m.path(setting.File), "--output", "json"),
		{Name: "logs/berth.jsonl", Read: m.messages},
		program("logs/kernel", "journalctl", "--dmesg", "--lines=5000", "--no-pager", "--quiet"),
		program("logs/journal", "journalctl", "--lines=10000", "--no-pager", "--quiet"),
	}
	for _, s := range serviceTitles {
		list = append(list, program("logs/"+s.name, "journalctl", "--unit="+s.name, "--lines=3000", "--no-pager", "--quiet"))
	}
	return list
}

// messages are the newest of the log service.
func (m *Machine) messages(ctx context.Context) ([]byte, error) {
	lines, err := m.Logs(ctx, LogService, "", mostLines)
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	for _, l := range lines {
		if err := e.Encode(l); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), err
}

// files reads files one behind the other. Those that are not there are left out.
func (m *Machine) files(paths ...string) ([]byte, error) {
	var all []byte
	for _, p := range paths {
		if !strings.HasPrefix(p, "/proc/") {
			p = m.path(p)
		}
		b, err := os.ReadFile(p)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return all, err
		}
		all = append(all, b...)
	}
	return all, nil
}

// output runs a program and gives what it says, also when it fails.
func output(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.WaitDelay = time.Second
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "SYSTEMD_COLORS=0"}
	var b tail
	cmd.Stdout, cmd.Stderr = &b, &b
	if err := cmd.Run(); err != nil {
		return b.Bytes(), fmt.Errorf("%s: %w", args[0], err)
	}
	return b.Bytes(), nil
}

// tail keeps the end of what is written to it.
type tail struct{ bytes.Buffer }

func (t *tail) Write(p []byte) (int, error) {
	n, err := t.Buffer.Write(p)
	if over := t.Len() - maxOutput; over > 0 {
		t.Next(over)
	}
	return n, err
}
