package server

import (
	"berth/agent/api"
	"berth/appliance/fault"
)

func statusRoutes() []route {
	return []route{
		{"GET", "/status", admin, "", "The appliance at a glance, with what is wrong", handle((*API).status)},
		{"GET", "/health", admin, "", "All checks, root causes first", handle((*API).health)},
		{"GET", "/services", admin, "", "The services, and what may be done to each", handle((*API).services)},
		{"POST", "/services/{name}/{action}", admin, "service", "Start, stop or restart a service", handle((*API).act)},
		{"GET", "/logs", admin, "", "The newest lines of the log service or the journal", handle((*API).logs)},
		{"GET", "/audit", admin, "", "Who changed what on the appliance, the newest first", handle((*API).audit)},
	}
}

func (a *API) status(r *request, _ none) (api.Status, error) {
	s, err := a.o.Machine.Status(r.Context())
	if !r.caller.local {
		s.Code = ""
	}
	return s, err
}

func (a *API) health(r *request, _ none) (api.Health, error) {
	return a.o.Machine.Health(r.Context()), nil
}

func (a *API) services(r *request, _ none) ([]api.Service, error) {
	return a.o.Machine.Services(r.Context())
}

func (a *API) act(r *request, in struct {
	Name   string `path:"name" doc:"as in the list: berth-core"`
	Action string `path:"action" doc:"start, stop or restart"`
}) (api.Service, error) {
	r.note(in.Name, in.Action)
	return a.o.Machine.Act(r.Context(), in.Name, in.Action)
}

func (a *API) logs(r *request, in struct {
	Source    string `query:"source" doc:"berth: the log service (the usual one); journal: systemd's, of the whole machine"`
	Component string `query:"component" doc:"registry, core …; of the journal: a unit"`
	Lines     int    `query:"lines" doc:"200 if absent, at most 1000"`
}) ([]api.Line, error) {
	return a.o.Machine.Logs(r.Context(), in.Source, in.Component, in.Lines)
}

// mostEvents is how many entries of the trail are given at once.
const mostEvents = 10_000

func (a *API) audit(_ *request, in struct {
	Entries int `query:"entries" doc:"100 if absent, at most 10000"`
}) ([]api.Event, error) {
	if in.Entries == 0 {
		in.Entries = 100
	}
	if in.Entries < 1 || in.Entries > mostEvents {
		return nil, fault.New(fault.Invalid, "it must be between 1 and %d", mostEvents).On("entries")
	}
	list, err := a.o.Trail.Last(in.Entries)
	if list == nil {
		list = []api.Event{}
	}
	return list, err
}
