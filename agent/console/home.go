package console

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"berth/agent/api"
	"berth/agent/client"
	"berth/agent/session"
	"berth/appliance/fault"
	"berth/appliance/secret"
)

// home leads everybody to the page that is for him.
func (c *console) home(v *visit) error {
	if v.session == nil {
		return v.strange()
	}
	about, err := c.Agent.About(v.ctx)
	if err != nil {
		return err
	}
	switch {
	case about.Phase == api.Waiting && about.Code:
		return v.redirect("/setup/network")
	case v.session.User == session.Setup && about.Phase == api.Ready:
		return v.redirect("/setup/result")
	case v.session.User == session.Setup:
		return v.redirect("/setup/progress")
	}
	return c.summary(v, about)
}

// summaryBody is the appliance at a glance.
type summaryBody struct {
	Status       api.Status
	Services     []api.Service
	Disks        []api.Disk
	Certificates api.Certificates
	Login        string
	Open         bool // the setup has not been finished: there are answers to change
	Own          bool // its certificate is from its own authority
	// Silent are the parts that could not be asked, with the reasons.
	Silent []string
}

// summary shows what there is: a part that does not answer is named, and hides
// none of the others.
func (c *console) summary(v *visit, about api.About) error {
	b := summaryBody{Open: about.Code}
	var err error
	if b.Status, err = c.Agent.Status(v.ctx); err != nil {
		return err
	}
	miss := func(what string, err error) {
		if err != nil {
			b.Silent = append(b.Silent, what+": "+fault.Of(err).Text)
		}
	}
	b.Services, err = c.Agent.Services(v.ctx)
	miss("Services", err)
	disks, err := c.Agent.Disks(v.ctx)
	miss("Disks", err)
	b.Disks = disks.Disks
	b.Certificates, err = c.Agent.Certificates(v.ctx)
	miss("Certificates", err)
	b.Own = err == nil && !b.Certificates.Supplied && b.Certificates.CA != nil
	b.Login = api.DockerHost(b.Status.Registry)
	page := "summary"
	if v.r.URL.Query().Has("part") {
		page = "state"
	}
	return c.render(v, 200, page, frame{Title: "Summary", Body: b})
}

// loginBody is the page for who is not known yet.
type loginBody struct {
	Code        bool // the setup waits for somebody with the code
	Ended       bool // the session has
	Failed      bool // it could not be finished
	Fault, Hint string
	User        string
}

func (c *console) loginPage(v *visit) error {
	if v.session != nil {
		return v.redirect("/")
	}
	return c.showLogin(v, 200, loginBody{Ended: v.r.URL.Query().Has("ended")})
}

func (c *console) showLogin(v *visit, status int, b loginBody) error {
	about, err := c.Agent.About(v.ctx)
	if err != nil {
		return err
	}
	b.Code, b.Failed = about.Code && about.Phase != api.Ready, about.Phase == api.Failed
	title := "Log in"
	if b.Code {
		title = "Set up this appliance"
	}
	return c.render(v, status, "login", frame{Title: title, Body: b})
}

func (c *console) login(v *visit) error {
	var made *session.Session
	var err error
	from := host(v.r.RemoteAddr)
	user := v.r.PostFormValue("user")
	code := v.r.PostFormValue("code")
	if v.r.PostForm.Has("code") {
		user = session.Setup
		made, err = c.Sessions.LoginByCode(v.r.Context(), secret.Text(code), from)
	} else {
		made, err = c.Sessions.Login(v.r.Context(), user, secret.Text(v.r.PostFormValue("password")), from)
	}
	event := api.Event{User: user, From: from, Action: "log in", Result: "ok"}
	if err != nil {
		event.Result = fault.Of(err).Text
	}
	c.Trail.Add(event)
	if err != nil {
		f := fault.Of(err)
		return c.showLogin(v, status(err), loginBody{Fault: f.Text, Hint: f.Hint, User: v.r.PostFormValue("user")})
	}
	session.SetCookie(v.w, made)
	return v.redirect("/")
}

func (c *console) logout(v *visit) error {
	c.drafts.forget(v.session)
	c.Sessions.End(v.w, v.r)
	return v.redirect("/login")
}

// ca is the appliance's authority as a file. It is no secret: whoever wants to
// trust it compares its fingerprint.
func (c *console) ca(v *visit) error {
	// Not in the visitor's name: a stranger may have it, too.
	pem, err := c.Agent.CA(client.For(v.r.Context(), client.Behalf{}))
	if err != nil {
		return err
	}
	v.w.Header().Set("Content-Type", "application/x-pem-file")
	v.w.Header().Set("Content-Disposition", `attachment; filename="berth-ca.crt"`)
	_, _ = v.w.Write(pem)
	return nil
}

// progressBody is how far the first boot is.
type progressBody struct {
	Setup api.Setup
	// Moves is where the console will be, if the network's settings take it away
	// from where it is.
	Moves string
	Done  int
	Open  bool // there are answers to change
}

func (c *console) progress(v *visit) error {
	known, err := c.Agent.Setup(v.ctx)
	if err != nil {
		return err
	}
	about, err := c.Agent.About(v.ctx)
	if err != nil {
		return err
	}
	part := v.r.URL.Query().Get("part") != ""
	if known.Phase == api.Ready && !part {
		return v.redirect("/setup/result")
	}
	b := progressBody{Setup: known, Open: about.Code, Moves: movedTo(v.r.URL.Query().Get("to"))}
	for _, s := range known.Steps {
		if s.Status == "done" {
			b.Done++
		}
	}
	if part {
		return c.render(v, 200, "steps", frame{Body: b})
	}
	f := frame{Title: "Setting up", Body: b}
	if known.Phase == api.Running || known.Phase == api.Waiting && len(known.Faults) == 0 {
		f.Refresh = 3
	}
	return c.render(v, 200, "progress", f)
}

// movedTo reads the address that a link of ours carries, and nothing else.
func movedTo(s string) string {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return ""
	}
	return "https://" + netip.AddrPortFrom(a, 5480).String() + "/"
}

// retry begins at the step that has failed, with the answers that it had. An
// appliance that was set up before has none; there the boot's steps are repeated.
func (c *console) retry(v *visit) error {
	err := c.Agent.ApplySetup(v.ctx, api.Answers{})
	if fault.Is(err, fault.Conflict) {
		ctx, cancel := context.WithTimeout(v.ctx, retryWait)
		defer cancel()
		_, err = c.Agent.Act(ctx, "berth-firstboot", "restart")
		if ctx.Err() != nil {
			err = nil // it is under way: the page shows how it gets on
		}
	}
	if err != nil {
		return err
	}
	return v.redirect("/setup/progress")
}

// retryWait is how long the boot's steps are waited for before their progress is shown.
const retryWait = 3 * time.Second

// resultBody is what to do with an appliance that is ready.
type resultBody struct {
	Setup     api.Setup
	Login     string
	Directory bool
	VCenter   bool
	Own       bool // its certificate is from its own authority
}

func (c *console) result(v *visit) error {
	known, err := c.Agent.Setup(v.ctx)
	if err != nil {
		return err
	}
	if known.Phase != api.Ready {
		return v.redirect("/setup/progress")
	}
	d := c.drafts.of(v.session, known)
	b := resultBody{Setup: known, Login: api.DockerHost(known.Registry), Own: d.certificate == ownCertificate,
		Directory: strings.HasPrefix(d.answers.Shown("registry.auth_mode"), "ldap") || strings.HasPrefix(d.answers.Shown("registry.auth_mode"), "oidc"),
		VCenter:   d.answers.Given("vcenter.address") && !d.answers.Given("vcenter.thumbprint")}
	return c.render(v, 200, "result", frame{Title: "The appliance is ready", Body: b})
}
