package core

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"berth/appliance/health"
	"berth/services/metric"
)

// wellness is Harbor's answer to how things are. Its names and words stay: load
// balancers and monitors look for status "healthy".
type wellness struct {
	Status     string            `json:"status"`
	Components []componentHealth `json:"components"`
}

// componentHealth is a component. Error is for everybody and tells nothing of the
// inside. What to do, and what it is because of, are for system administrators;
// Harbor has neither.
type componentHealth struct {
	Name   string   `json:"name"`
	Status string   `json:"status"`
	Error  string   `json:"error,omitempty"`
	Causes []string `json:"causes,omitempty"`
	Hint   string   `json:"hint,omitempty"`
	Detail string   `json:"detail,omitempty"`
}

// healthAge is how old an answer may be: strangers can ask as often as they like,
// and each time all components would be.
const healthAge = time.Second

// lastHealth is the last report.
type lastHealth struct {
	mu     sync.Mutex
	at     time.Time
	report health.Report
}

// checkHealth asks all components at once, or gives what they just said.
func (a *API) checkHealth(ctx context.Context) health.Report {
	a.well.mu.Lock()
	defer a.well.mu.Unlock()
	if time.Since(a.well.at) < healthAge {
		return a.well.report
	}
	a.well.report = health.Run(context.WithoutCancel(ctx), a.Checks) // others wait for it, too
	a.well.at = time.Now()
	for i := range a.well.report.Results {
		if r := &a.well.report.Results[i]; r.Root() {
			a.Log.WarnContext(ctx, "a component is not well", "component", r.Name, "state", string(r.State), "err", r.Err, "explains", r.Explains)
		}
	}
	return a.well.report
}

// health tells how the components are. What only should be seen to counts as
// healthy, for it works: what asks here takes Berth out of service otherwise.
func (a *API) health(r *request, _ none) (wellness, error) {
	report := a.checkHealth(r.Context())
	w := wellness{Status: string(health.Healthy), Components: make([]componentHealth, len(a.Checks))}
	for i, c := range a.Checks { // in Harbor's way components have their places
		found := report.Find(c.Name)
		h := componentHealth{Name: c.Name, Status: string(health.Healthy)}
		if found.State == health.Unhealthy {
			h.Status, h.Error = string(health.Unhealthy), found.Text()
			w.Status = h.Status
		}
		if found.State != health.Healthy && r.principal.Sysadmin {
			h.Causes, h.Hint, h.Detail = found.Causes, found.Hint, found.Err.Error()
		}
		w.Components[i] = h
	}
	return w, nil
}

// healthEvery is how often scrapes ask the components.
const healthEvery = 15 * time.Second

// measureHealth registers how the components are.
func (a *API) measureHealth(r prometheus.Registerer) {
	if r == nil {
		return
	}
	well := prometheus.NewDesc("berth_component_healthy", "1 if a component works, by itself and with what it depends on.", []string{"component"}, nil)
	root := prometheus.NewDesc("berth_component_root_cause", "1 if a component is unhealthy by itself, and not because of another.", []string{"component"}, nil)
	r.MustRegister(&metric.Slow{Descs: []*prometheus.Desc{well, root}, Every: healthEvery, Ask: func(ctx context.Context) (list []prometheus.Metric, _ error) {
		report := a.checkHealth(ctx)
		for i := range report.Results {
			x := &report.Results[i]
			var isWell, isRoot float64
			if x.State != health.Unhealthy {
				isWell = 1
			} else if x.Root() {
				isRoot = 1
			}
			list = append(list, prometheus.MustNewConstMetric(well, prometheus.GaugeValue, isWell, x.Name),
				prometheus.MustNewConstMetric(root, prometheus.GaugeValue, isRoot, x.Name))
		}
		return list, nil
	}})
}
