package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"berth/appliance/cli"
	"berth/appliance/fault"
	"berth/appliance/health"
	"berth/appliance/setting"
	"berth/services/debug"
)

// debugCommand looks into processes that run.
func (a *app) debugCommand() *cobra.Command {
	c := &cobra.Command{Use: "debug", Short: "Look into a running Berth: profiles, metrics, the level of its log", GroupID: "care",
		Long: "Asks a running process on its debug socket, which only its own user and root can open.\n" +
			"Under `berth up` there is one process; where services are units, --service says which."}
	c.AddCommand(a.debugProfile(), a.debugLogLevel(), a.debugMetrics())
	return c
}

// profiles are those that can be asked for, by the names that net/http/pprof has
// for them.
var profiles = map[string]string{
	"cpu": "profile", "heap": "heap", "allocs": "allocs", "goroutine": "goroutine", "block": "block", "mutex": "mutex", "threadcreate": "threadcreate", "trace": "trace",
}

func (a *app) debugProfile() *cobra.Command {
	var service, output string
	var seconds int
	c := &cobra.Command{
		Use: "profile KIND", Short: "Write a profile for go tool pprof: cpu, heap, allocs, goroutine, threadcreate, block, mutex or trace", Args: cobra.ExactArgs(1),
		Example: "  berth debug profile cpu --data /var/lib/berth --seconds 30 -o cpu.pprof\n" +
			"  go tool pprof -http localhost:8000 cpu.pprof",
		RunE: func(c *cobra.Command, args []string) error {
			path, ok := profiles[args[0]]
			if !ok {
				return cli.Mistake(fault.New(fault.Invalid, "there is no profile %q", args[0]).WithHint("cpu, heap, allocs, goroutine, threadcreate, block, mutex or trace"))
			}
			if seconds < 0 || seconds > debug.MaxSeconds {
				return cli.Mistake(fault.New(fault.Invalid, "it must be at most %d", debug.MaxSeconds).On("--seconds"))
			}
			q := url.Values{}
			if path == "profile" || path == "trace" {
				q.Set("seconds", strconv.Itoa(cmp.Or(seconds, 10)))
			} else if seconds > 0 {
				q.Set("seconds", strconv.Itoa(seconds)) // the difference over that time
			}
			return a.onDebug(c, service, func(ctx context.Context, d debugClient) error {
				return d.save(ctx, "/debug/pprof/"+path+"?"+q.Encode(), output)
			})
		},
	}
	a.settingFlags(c)
	serviceFlag(c, &service)
	c.Flags().IntVar(&seconds, "seconds", 0, "how long to watch (cpu, trace: 10 by default; others: as they are now)")
	c.Flags().StringVarP(&output, "output", "o", "", "`file` to write to")
	must(c.MarkFlagRequired("output"))
	c.ValidArgs = []string{"cpu", "heap", "allocs", "goroutine", "threadcreate", "block", "mutex", "trace"}
	return c
}

func (a *app) debugLogLevel() *cobra.Command {
	var service string
	c := &cobra.Command{
		Use: "log-level [debug|info|warn|error]", Short: "Tell the level of the log, or change it until the next restart", Args: cobra.MaximumNArgs(1),
		ValidArgs: []string{"debug", "info", "warn", "error"},
		RunE: func(c *cobra.Command, args []string) error {
			method, body := http.MethodGet, ""
			if len(args) > 0 {
				if _, err := debug.ParseLevel(args[0]); err != nil {
					return cli.Mistake(err)
				}
				method, body = http.MethodPut, args[0]
			}
			return a.onDebug(c, service, func(ctx context.Context, d debugClient) error {
				text, err := d.text(ctx, method, "/log-level", body)
				if err == nil {
					_, err = fmt.Fprintln(a.stdout, strings.TrimSpace(text))
				}
				return err
			})
		},
	}
	a.settingFlags(c)
	serviceFlag(c, &service)
	return c
}

func (a *app) debugMetrics() *cobra.Command {
	var service string
	c := &cobra.Command{
		Use: "metrics", Short: "Print what Prometheus would be told", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.onDebug(c, service, func(ctx context.Context, d debugClient) error {
				text, err := d.text(ctx, http.MethodGet, "/metrics", "")
				if err == nil {
					_, err = io.WriteString(a.stdout, text)
				}
				return err
			})
		},
	}
	a.settingFlags(c)
	serviceFlag(c, &service)
	return c
}

func serviceFlag(c *cobra.Command, service *string) {
	c.Flags().StringVar(service, "service", "", "`name` of the service, where each is a unit: "+strings.Join(setting.MetricsPorts(), ", "))
}

// onDebug finds the process that is meant.
func (a *app) onDebug(c *cobra.Command, service string, f func(context.Context, debugClient) error) error {
	if service != "" && !slices.Contains(setting.MetricsPorts(), service) {
		return cli.Mistake(fault.New(fault.Invalid, "there is no service %q", service).On("--service").WithHint("%s", strings.Join(setting.MetricsPorts(), ", ")))
	}
	s, err := a.settings(c)
	if err != nil {
		return err
	}
	return f(c.Context(), debugClient{socket: debugSocket(s, service), service: service})
}

// debugClient asks one process.
type debugClient struct{ socket, service string }

// patience is how long an answer may take beyond what was asked for.
const patience = 30 * time.Second

func (d debugClient) do(ctx context.Context, method, path, body string) (*http.Response, error) {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", d.socket)
	}}
	req, err := http.NewRequestWithContext(ctx, method, "http://berth"+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	res, err := transport.RoundTrip(req)
	if err != nil {
		f := fault.Of(health.Unanswered(err)).On(d.socket)
		if f.Hint == "" {
			f.Hint = "is Berth running, with this --data or --config?"
			if d.service == "" {
				f.Hint += " Where services are units, say which: --service " + strings.Join(setting.MetricsPorts(), "|")
			}
		}
		return nil, f
	}
	if res.StatusCode != http.StatusOK {
		defer res.Body.Close()
		b, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10)) // what came of it will do
		return nil, fault.New(fault.Unavailable, "the process answers %s: %s", res.Status, strings.TrimSpace(string(b)))
	}
	return res, nil
}

func (d debugClient) text(ctx context.Context, method, path, body string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	res, err := d.do(ctx, method, path, body)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 64<<20))
	return string(b), err
}

// save writes an answer to a file. A profile tells what a process works on, so
// nobody else may read it.
func (d debugClient) save(ctx context.Context, path, file string) error {
	ctx, cancel := context.WithTimeout(ctx, debug.MaxSeconds*time.Second+patience)
	defer cancel()
	res, err := d.do(ctx, http.MethodGet, path, "")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	f, err := os.OpenFile(file, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "cannot write the profile").On("--output")
	}
	_, err = io.Copy(f, res.Body)
	return errors.Join(err, f.Close())
}
