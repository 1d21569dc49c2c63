package server

import (
	"net/netip"

	"berth/agent/api"
	"berth/appliance/setting"
)

func networkRoutes() []route {
	return []route{
		{"GET", "/network", admin, "", "What was set, and how it is", handle((*API).network)},
		{"PUT", "/network", admin, "change the network", "Change the network; it is taken back unless it is confirmed in time over the new address", handle((*API).changeNetwork)},
		{"GET", "/network/pending", admin, "", "The change that waits for its confirmation", handle((*API).pendingNetwork)},
		{"POST", "/network/confirm", admin, "confirm the network", "Keep the change of the network", handle((*API).confirmNetwork)},
		{"POST", "/network/revert", admin, "revert the network", "Take the change of the network back now", handle((*API).revertNetwork)},
		{"POST", "/network/restore", admin, "restore access", "Go back to DHCP and open the firewall for the console", handle((*API).restoreAccess)},
		{"GET", "/names", admin, "", "What clients call the appliance", handle((*API).names)},
		{"PUT", "/names", admin, "change the names", "Change the names; the certificate follows", handle((*API).setNames)},
		{"GET", "/time", admin, "", "Time zone, servers, and the time", handle((*API).time)},
		{"PUT", "/time", admin, "change the time settings", "Change the zone and the servers", handle((*API).setTime)},
		{"POST", "/time/test", setup, "", "Ask time servers for the time", handle((*API).testTime)},
		{"GET", "/firewall", admin, "", "The networks that may reach each port", handle((*API).firewall)},
		{"PUT", "/firewall", admin, "change the firewall", "Change the networks", handle((*API).setFirewall)},
	}
}

func (a *API) network(r *request, _ none) (api.Network, error) {
	return a.o.Machine.Network(r.Context())
}

func (a *API) changeNetwork(r *request, in struct {
	Body setting.Network `body:""`
}) (accepted[api.Pending], error) {
	n := in.Body
	r.note(n.Hostname, "mode "+n.Mode+" "+n.IP4+" "+n.IP6)
	p, err := a.o.Machine.ChangeNetwork(r.Context(), n)
	return accepted[api.Pending]{api.Prefix + "/network/pending", p}, err
}

func (a *API) pendingNetwork(r *request, _ none) (api.Pending, error) {
	return a.o.Machine.PendingNetwork()
}

func (a *API) confirmNetwork(r *request, in struct {
	Body api.Confirm `body:",optional"`
}) (done, error) {
	over := r.caller.over
	if r.caller.local {
		over = netip.Addr{}
	}
	return done{}, a.o.Machine.ConfirmNetwork(r.Context(), in.Body.ID, over)
}

func (a *API) revertNetwork(r *request, _ none) (done, error) {
	return done{}, a.o.Machine.RevertNetwork(r.Context())
}

func (a *API) restoreAccess(r *request, _ none) (done, error) {
	return done{}, a.o.Machine.RestoreAccess(r.Context())
}

func (a *API) names(r *request, _ none) (api.Names, error) { return a.o.Machine.Names(r.Context()) }

func (a *API) setNames(r *request, in struct {
	Body setNames `body:""`
}) (api.Names, error) {
	r.note("", join(in.Body.Names))
	return a.o.Machine.SetNames(r.Context(), in.Body.Names)
}

// setNames is api.Names as it is sent: what else there is follows from it, and is
// taken no notice of.
type setNames struct {
	Names       []string `json:"names"`
	Hostname    string   `json:"hostname,omitempty"`
	Certificate []string `json:"certificate,omitempty"`
	Missing     []string `json:"missing,omitempty"`
}

func (a *API) time(r *request, _ none) (api.Time, error) { return a.o.Machine.Time(r.Context()) }

func (a *API) setTime(r *request, in struct {
	Body setting.Time `body:""`
}) (api.Time, error) {
	r.note(in.Body.Zone, join(in.Body.NTP))
	return a.o.Machine.SetTime(r.Context(), in.Body)
}

func (a *API) testTime(r *request, in struct {
	Body api.TimeTest `body:",optional"`
}) ([]api.TimeAnswer, error) {
	return a.o.Machine.TestTime(r.Context(), in.Body.Server)
}

func (a *API) firewall(r *request, _ none) (setting.Firewall, error) {
	return a.o.Machine.Firewall(r.Context())
}

func (a *API) setFirewall(r *request, in struct {
	Force bool             `query:"force" doc:"also if the caller's own address is shut out"`
	Body  setting.Firewall `body:""`
}) (setting.Firewall, error) {
	f := in.Body
	r.note("", "registry "+join(f.Registry)+"; console "+join(f.Console)+"; ssh "+join(f.SSH))
	return a.o.Machine.SetFirewall(r.Context(), f, addrOf(r.caller.address), in.Force)
}
