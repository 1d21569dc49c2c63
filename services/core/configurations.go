package core

import (
	"berth/appliance/fault"
	"berth/services/configuration"
)

// configurationRoutes are for what administrators change while Berth runs.
var configurationRoutes = []route{
	{"GET", v2 + "/configurations", sysadmins(), "List the system's settings, without secrets", handle((*API).getConfigurations)},
	{"PUT", v2 + "/configurations", sysadmins(), "Change some of the system's settings", handle((*API).putConfigurations)},
	{"GET", v2 + "/internalconfig", open(), "Refuse what Harbor's own parts ask one another", handle((*API).internalConfig)},
}

// configurations are the settings by key, each an Item; scan_all_policy stands
// where Harbor shows the schedule of its scans.
type configurations map[string]any

func (a *API) getConfigurations(r *request, _ none) (configurations, error) {
	settings, err := a.Configuration.Current(r.Context())
	if err != nil {
		return nil, err
	}
	mode, err := a.Configuration.ModeEditable(r.Context())
	out := configurations{"scan_all_policy": struct{}{}}
	for name, item := range settings.Items(mode) {
		out[name] = item
	}
	return out, err
}

func (a *API) putConfigurations(r *request, in struct {
	Body configuration.Change `body:""`
}) (empty, error) {
	return empty{}, a.Configuration.Update(r.Context(), in.Body)
}

func (a *API) internalConfig(*request, none) (empty, error) {
	return empty{}, fault.New(fault.Unauthenticated, "the parts of this registry do not ask each other here").
		WithHint("use /api/v2.0/configurations")
}
