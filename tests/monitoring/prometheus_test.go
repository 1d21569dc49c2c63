package monitoring

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"berth/tests/berthtest"
)

// rulesDir is docs/monitoring.
func rulesDir(t *testing.T) string {
	t.Helper()
	root, err := berthtest.Root()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(root, "docs", "monitoring")
}

// The rules are well formed, and each alert fires when it should and at no other time.
func TestRules(t *testing.T) {
	t.Parallel()
	promtool, dir := berthtest.Program(t, "promtool"), rulesDir(t)
	for _, args := range [][]string{{"check", "rules", "alerts.yaml"}, {"test", "rules", "alerts_test.yaml"}, {"check", "config", "prometheus.yaml"}} {
		c := exec.CommandContext(t.Context(), promtool, args...)
		c.Dir = dir
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
	var tests struct {
		Tests []struct {
			Rules []struct {
				Alert string           `yaml:"alertname"`
				Fires []map[string]any `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "alerts_test.yaml"))
	if err == nil {
		err = yaml.Unmarshal(text, &tests)
	}
	if err != nil {
		t.Fatal(err)
	}
	tested := map[string][2]bool{}
	for _, x := range tests.Tests {
		for _, r := range x.Rules {
			seen := tested[r.Alert]
			seen[min(len(r.Fires), 1)] = true
			tested[r.Alert] = seen
		}
	}
	for _, r := range readRules(t) {
		if r.Alert == "" {
			continue
		}
		if tested[r.Alert] != [2]bool{true, true} {
			t.Errorf("%s: its firing and its silence are not both tested", r.Alert)
		}
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" || !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) {
			t.Errorf("%s: summary, description or severity is missing", r.Alert)
		}
	}
}

type rule struct {
	Alert, Record, Expr string
	Labels, Annotations map[string]string
}

func readRules(t *testing.T) (list []rule) {
	t.Helper()
	var file struct{ Groups []struct{ Rules []rule } }
	text, err := os.ReadFile(filepath.Join(rulesDir(t), "alerts.yaml"))
	if err == nil {
		err = yaml.Unmarshal(text, &file)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		list = append(list, g.Rules...)
	}
	return list
}

// panel is one of a dashboard's.
type panel struct {
	ID         int
	Type       string
	Title      string
	Datasource struct{ UID string }
	GridPos    struct{ X, Y, W, H int }
	Targets    []struct{ Expr string }
}

// dashboards reads them, by file.
func dashboards(t *testing.T) map[string][]panel {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(rulesDir(t), "grafana", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatal("there are no dashboards", err)
	}
	all := map[string][]panel{}
	for _, f := range files {
		var board struct {
			UID, Title    string
			SchemaVersion int
			Panels        []panel
			Templating    struct{ List []struct{ Name, Type string } }
		}
		text, err := os.ReadFile(f)
		if err == nil {
			err = json.Unmarshal(text, &board)
		}
		if err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		if board.UID == "" || board.Title == "" || board.SchemaVersion < 39 || len(board.Templating.List) == 0 || board.Templating.List[0].Type != "datasource" {
			t.Errorf("%s: uid, title, a current schema or the variable for the data source is missing", f)
		}
		ids := map[int]bool{}
		for _, p := range board.Panels {
			if ids[p.ID] || p.Title == "" || p.GridPos.W < 1 || p.GridPos.X+p.GridPos.W > 24 || p.Type != "row" && (len(p.Targets) == 0 || p.Datasource.UID != "${datasource}") {
				t.Errorf("%s: panel %d %q has a faulty id, place, title, source or nothing to show", f, p.ID, p.Title)
			}
			ids[p.ID] = true
		}
		all[filepath.Base(f)] = board.Panels
	}
	return all
}

// prometheus runs a real one that scrapes w every second with our rules, and gives the address of its API.
func prometheus(t *testing.T, w *watched) string {
	t.Helper()
	program, dir := berthtest.Program(t, "prometheus"), t.TempDir()
	addr, err := berthtest.FreeAddr("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [%s]\nscrape_configs: [{job_name: berth, static_configs: [{targets: [%q]}]}]\n",
		filepath.Join(rulesDir(t), "alerts.yaml"), w.metrics)
	file := filepath.Join(dir, "prometheus.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := exec.CommandContext(ctx, program, "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr, "--log.level=error")
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = 10 * time.Second
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = c.Wait() }) // how it ends is not what is tested
	until(t, "Prometheus", func() bool {
		res, err := http.Get("http://" + addr + "/-/ready")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
	return "http://" + addr
}

// ask queries Prometheus: whether it understood, and the first value, if there is one.
func ask(t *testing.T, api, expr string) (value float64, found bool, fault string) {
	t.Helper()
	_, body := get(t, http.DefaultClient, api+"/api/v1/query?query="+url.QueryEscape(expr))
	answer := decode[struct {
		Status, Error string
		Data          struct {
			Result []struct{ Value [2]any }
		}
	}](t, body)
	if answer.Status != "success" {
		return 0, false, answer.Error
	}
	if len(answer.Data.Result) == 0 {
		return 0, false, ""
	}
	value, err := strconv.ParseFloat(fmt.Sprint(answer.Data.Result[0].Value[1]), 64)
	return value, err == nil, ""
}

// afterPush are queries, and what they give at least after one push and one wrong password.
var afterPush = map[string]float64{
	`sum(berth_http_requests_total{service="proxy",route="manifest",method="PUT",code="2xx"})`: 1,
	`sum(berth_http_requests_total{service="proxy",route="upload",code="2xx"})`:                6,
	`sum(berth_http_received_bytes_total{route="upload"})`:                                     200_000,
	`sum(berth_http_request_duration_seconds_count{service="proxy",route="manifest"})`:         1,
	`sum(berth_tokens_issued_total{kind="user"})`:                                              1,
	`sum(berth_login_failures_total{reason="wrong"})`:                                          1,
	`sum(berth_events_total{result="handled"})`:                                                1,
	`sum(berth_task_runs_total{vendor="WEBHOOK",status="success"})`:                            1,
	`sum(berth_http_requests_total{service="core"})`:                                           1,
	`min(berth_component_healthy)`:                                                             1,
	`sum(berth_queue_jobs) + count(berth_queue_oldest_age_seconds)`:                            1,
	`min(berth_volume_free_bytes{volume="storage"})`:                                           1,
	`(berth_certificate_expiry_timestamp_seconds - time()) / 86400`:                            300,
	`sum(berth_database_connections_max)`:                                                      50,
	`sum(berth_logs_received_total)`:                                                           1,
	`sum(berth_log_collector_sent_total{collector="test"})`:                                    1,
	`sum(berth_trace_spans_sent_total)`:                                                        10,
	`max(berth_gc_last_success_timestamp_seconds)`:                                             1,
	`count(berth:requests:rate5m)`:                                                             1,
	`sum(berth_cache_hits_total{cache="tokens"})`:                                              1,
	`sum(process_resident_memory_bytes{job="berth"})`:                                          1 << 20,
}

// A real Prometheus scrapes a real Berth and knows of a push that has just happened; our rules and dashboards use what
// is really there.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	w := watch(t)
	api := prometheus(t, w)
	until(t, "the first scrape", func() bool { v, ok, _ := ask(t, api, `up{job="berth"}`); return ok && v == 1 })
	w.push(t)
	wrong := berthtest.Login{User: "admin", Password: "Wrong-1-password"}
	if got := w.Registry(t, wrong).Do(t, "GET", "/v2/library/app/tags/list", nil); got.StatusCode != 401 {
		t.Errorf("a wrong password: %s", got.Status)
	}
	for expr, least := range afterPush {
		var value float64
		until(t, expr, func() bool {
			v, ok, fault := ask(t, api, expr)
			if fault != "" {
				t.Fatalf("%s: %s", expr, fault)
			}
			value = v
			return ok && value >= least
		})
	}
	expressions := map[string]string{}
	for _, r := range readRules(t) {
		expressions["rule "+r.Alert+r.Record] = r.Expr
	}
	for file, panels := range dashboards(t) {
		for _, p := range panels {
			for i, target := range p.Targets {
				expressions[fmt.Sprintf("%s: %s %d", file, p.Title, i)] = target.Expr
			}
		}
	}
	known := names(t, w.scrape(t))
	for _, r := range readRules(t) {
		if r.Record != "" {
			known[r.Record] = true
		}
	}
	for what, expr := range expressions {
		expr = strings.NewReplacer("$__rate_interval", "1m", "$instance", ".*").Replace(expr)
		if _, _, fault := ask(t, api, expr); fault != "" {
			t.Errorf("%s: %s: %s", what, expr, fault)
		}
		for _, name := range metricName.FindAllString(expr, -1) {
			if !known[name] {
				t.Errorf("%s uses %s, which no Berth exports", what, name)
			}
		}
	}
	if v, ok, _ := ask(t, api, `ALERTS{alertstate="firing"}`); ok {
		t.Errorf("an alert fires though all is well: %v", v)
	}
}

var metricName = regexp.MustCompile(`\b(?:berth|process|go)[_:][a-z0-9_:]+\b`)

// names are the metrics in a scrape, with a histogram's series.
func names(t *testing.T, text string) map[string]bool {
	t.Helper()
	known := map[string]bool{}
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(strings.TrimSpace(rest), " ")
			known[name] = true
			if kind == "histogram" {
				known[name+"_bucket"], known[name+"_sum"], known[name+"_count"] = true, true, true
			}
		}
	}
	return known
}

// What Berth exports follows Prometheus's conventions, and strangers cannot add to it.
func TestMetricsAreSane(t *testing.T) {
	t.Parallel()
	promtool := berthtest.Program(t, "promtool")
	w := watch(t)
	w.push(t)
	check := exec.CommandContext(t.Context(), promtool, "check", "metrics")
	check.Stdin = strings.NewReader(w.scrape(t))
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
	series := func() (list []string) {
		for line := range strings.Lines(w.scrape(t)) {
			if strings.HasPrefix(line, "berth_") {
				name, _, _ := strings.Cut(line, " ")
				list = append(list, name)
			}
		}
		return list
	}
	nonsense := func(n int) {
		client := w.Client(t)
		for i := range n {
			x := fmt.Sprintf("nonsense%d", i)
			for _, path := range []string{"/" + x, "/v2/" + x + "/manifests/" + x, "/v2/" + x + "/blobs/" + x, "/v2/" + x, "/api/v2.0/" + x, "/api/v2.0/projects/" + x,
				"/service/token?service=harbor-registry&scope=repository:" + x + ":pull", "/c/" + x, "/v2/%2e%2e/" + x} {
				for _, method := range []string{"GET", "PUT", strings.ToUpper(x)} {
					req, err := http.NewRequestWithContext(t.Context(), method, w.URL+path, nil)
					if err != nil {
						t.Fatal(err)
					}
					req.SetBasicAuth(x, x)
					res, err := client.Do(req)
					if err != nil {
						t.Fatal(err)
					}
					res.Body.Close()
				}
			}
		}
	}
	nonsense(1)
	before := series()
	nonsense(8)
	for _, s := range series() {
		if !slices.Contains(before, s) {
			t.Errorf("strangers have made the series %s", s)
		}
		if strings.Contains(strings.ToLower(s), "nonsense") {
			t.Errorf("a stranger's words are in %s", s)
		}
	}
}
