package server

import (
	"strconv"

	"berth/agent/api"
	"berth/appliance/setting"
)

func diskRoutes() []route {
	return []route{
		{"GET", "/disks", admin, "", "The disks by their roles, and how full they are", handle((*API).disks)},
		{"PUT", "/disks", admin, "change the disks' limits", "Change when a disk counts as nearly full, and when the registry takes no more pushes", handle((*API).setDisks)},
		{"POST", "/disks/{role}/grow", admin, "grow a disk", "Make a file system as large as its disk, which was enlarged in vCenter", handle((*API).grow)},
		{"POST", "/disks/{role}/replace", admin, "replace a lost disk", "Take another disk for a role whose own one is lost, and go on with the start that has failed", handle((*API).replaceDisk)},
	}
}

func outwardRoutes() []route {
	return []route{
		{"GET", "/proxy", admin, "", "The proxy for outgoing connections", handle((*API).proxy)},
		{"PUT", "/proxy", admin, "change the proxy", "Change the proxy", handle((*API).setProxy)},
		{"POST", "/proxy/test", admin, "", "Try to reach a URL through the proxy", handle((*API).testProxy)},
		{"GET", "/syslog", admin, "", "The collectors of log messages, and how they get on", handle((*API).syslog)},
		{"PUT", "/syslog", admin, "change the collectors", "Change the collectors", handle((*API).setSyslog)},
		{"POST", "/syslog/test", admin, "", "Send a test message to a collector", handle((*API).testSyslog)},
	}
}

func (a *API) disks(r *request, _ none) (api.Disks, error) { return a.o.Machine.Disks(r.Context()) }

func (a *API) setDisks(r *request, in struct {
	Body setting.Disks `body:""`
}) (api.Disks, error) {
	r.note("", "warn at "+strconv.Itoa(in.Body.Warn())+" %, read-only at "+strconv.Itoa(in.Body.ReadOnly())+" %")
	return a.o.Machine.SetDisks(r.Context(), in.Body)
}

func (a *API) grow(r *request, in struct {
	Role string `path:"role" doc:"data, database or log"`
}) (api.Disk, error) {
	r.note(in.Role, "")
	return a.o.Machine.Grow(r.Context(), in.Role)
}

func (a *API) replaceDisk(r *request, in struct {
	Role string              `path:"role" doc:"data, database or log"`
	Body api.DiskReplacement `body:""`
}) (api.Disks, error) {
	r.note(in.Role, in.Body.Device)
	return a.o.Machine.Replace(r.Context(), in.Role, in.Body.Device)
}

func (a *API) proxy(r *request, _ none) (api.Proxy, error) { return a.o.Machine.Proxy(r.Context()) }

func (a *API) setProxy(r *request, in struct {
	Body api.Proxy `body:""`
}) (api.Proxy, error) {
	r.note(in.Body.HTTP+" "+in.Body.HTTPS, "")
	return a.o.Machine.SetProxy(r.Context(), in.Body)
}

func (a *API) testProxy(r *request, in struct {
	Body api.ProxyTest `body:""`
}) (api.Tested, error) {
	return a.o.Machine.TestProxy(r.Context(), in.Body)
}

func (a *API) syslog(r *request, _ none) (api.Syslog, error) { return a.o.Machine.Syslog(r.Context()) }

func (a *API) setSyslog(r *request, in struct {
	Body api.Syslog `body:""`
}) (api.Syslog, error) {
	targets := make([]string, len(in.Body.Forward))
	for i, c := range in.Body.Forward {
		targets[i] = c.Name + "=" + c.To
	}
	r.note("", join(targets))
	return a.o.Machine.SetSyslog(r.Context(), in.Body)
}

func (a *API) testSyslog(r *request, in struct {
	Body api.SyslogTest `body:""`
}) (api.Tested, error) {
	return a.o.Machine.TestSyslog(r.Context(), in.Body.Name)
}
