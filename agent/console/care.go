package console

import (
	"context"
	"io"
	"slices"
	"strings"
	"time"

	"berth/agent/api"
	"berth/appliance/fault"
)

// The actions of Power.
const (
	reboot   = "reboot"
	shutdown = "shutdown"
)

// actWait is how long a service may take: stopping the registry lets uploads end.
const actWait = 2 * time.Minute

// offered is what a page offers to do to a service: start it if it does not run,
// else restart it; "": nothing may be done.
func offered(s api.Service) string {
	for _, action := range []string{"start", "restart"} {
		if slices.Contains(s.Actions, action) && (action != "start" || s.State != "active") {
			return action
		}
	}
	return ""
}

// confirmBody asks once more before something is done.
type confirmBody struct {
	Text, Action, Button, Back string
}

func (c *console) confirm(v *visit, title string, b confirmBody) error {
	b.Back = "/"
	return c.render(v, 200, "confirm", frame{Title: title, Body: b})
}

// actPage asks whether a service is to be started or restarted.
func (c *console) actPage(v *visit) error {
	services, err := c.Agent.Services(v.ctx)
	if err != nil {
		return err
	}
	name, action := v.r.PathValue("name"), v.r.PathValue("action")
	i := slices.IndexFunc(services, func(s api.Service) bool { return s.Name == name && slices.Contains(s.Actions, action) })
	if i < 0 || action != "start" && action != "restart" {
		return c.nowhere(v)
	}
	title, text := "Start "+name, services[i].Title+" is started, and what it needs with it."
	if action == "restart" {
		title, text = "Restart "+name, services[i].Title+" is stopped in order and started again. What needs it is not there in between; that takes some seconds."
	}
	return c.confirm(v, title, confirmBody{Text: text, Action: v.r.URL.Path, Button: title})
}

func (c *console) act(v *visit) error {
	ctx, cancel := context.WithTimeout(v.ctx, actWait)
	defer cancel()
	name := v.r.PathValue("name")
	if _, err := c.Agent.Act(ctx, name, v.r.PathValue("action")); err != nil {
		return err
	}
	if name == "berth-agent" { // it is what answers here, and is away for a moment
		return c.render(v, 202, "down", frame{Title: "Restarting", Body: api.PowerState{Action: name}})
	}
	return v.redirect("/")
}

// powerPage asks whether the machine is to go down.
func (c *console) powerPage(v *visit) error {
	switch v.r.PathValue("action") {
	case reboot:
		return c.confirm(v, "Restart the appliance", confirmBody{Action: "/power/reboot", Button: "Restart now",
			Text: "All services are stopped in order, and the virtual machine starts again. Clients cannot push or pull for about a minute; pushes under way have a moment to end."})
	case shutdown:
		return c.confirm(v, "Shut down the appliance", confirmBody{Action: "/power/shutdown", Button: "Shut down now",
			Text: "All services are stopped in order, and the virtual machine is switched off. Nobody can push or pull until it is switched on again in the vSphere Client."})
	}
	return c.nowhere(v)
}

func (c *console) power(v *visit) error {
	s, err := c.Agent.Power(v.ctx, v.r.PathValue("action"), api.Power{Reason: "from the console"})
	if err != nil {
		return err
	}
	title := "Restarting"
	if s.Action == shutdown {
		title = "Shutting down"
	}
	return c.render(v, 202, "down", frame{Title: title, Body: s})
}

func (c *console) cancelPower(v *visit) error {
	if err := c.Agent.CancelPower(v.ctx); err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	return v.redirect("/")
}

// supportBody is the support bundles that there are.
type supportBody struct{ Bundles []api.Bundle }

func (c *console) support(v *visit) error {
	list, err := c.Agent.Bundles(v.ctx)
	if err != nil {
		return err
	}
	f := frame{Title: "Support bundle", Body: supportBody{list}}
	page := "support"
	if v.r.URL.Query().Has("part") {
		page = "bundles"
	} else if slices.ContainsFunc(list, func(b api.Bundle) bool { return b.State == "running" }) {
		f.Refresh = 3
	}
	return c.render(v, 200, page, f)
}

func (c *console) createBundle(v *visit) error {
	if _, err := c.Agent.CreateBundle(v.ctx); err != nil {
		return err
	}
	return v.redirect("/support")
}

// downloadBundle passes a bundle on as a file.
func (c *console) downloadBundle(v *visit) error {
	id := v.r.PathValue("id")
	content, err := c.Agent.DownloadBundle(v.ctx, id)
	if err != nil {
		return err
	}
	defer content.Close()
	v.w.Header().Set("Content-Type", "application/gzip")
	v.w.Header().Set("Content-Disposition", `attachment; filename="berth-support-`+strings.Map(fileName, id)+`.tar.gz"`)
	if _, err := io.Copy(v.w, content); err != nil {
		c.Log.Debug("the support bundle did not get to the browser", "err", err)
	}
	return nil
}

// fileName leaves what ids of bundles have.
func fileName(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' {
		return r
	}
	return -1
}

func (c *console) deleteBundle(v *visit) error {
	if err := c.Agent.DeleteBundle(v.ctx, v.r.PathValue("id")); err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	return v.redirect("/support")
}
