package console

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"berth/agent/api"
	"berth/agent/session"
	"berth/agent/wizard"
	"berth/appliance/diskrole"
	"berth/appliance/fault"
	"berth/appliance/setting"
)

const reviewPage = "review"

// draftOf gives the visitor's draft while there is something to set up.
func (c *console) draftOf(v *visit) (draft, api.Setup, error) {
	known, err := c.Agent.Setup(v.ctx)
	if err != nil {
		return draft{}, known, err
	}
	return c.drafts.of(v.session, known), known, nil
}

// elsewhere sends the browser to the page that fits the phase, if that is not the wizard.
func elsewhere(v *visit, known api.Setup) bool {
	switch {
	case known.Phase == api.Running:
		_ = v.redirect("/setup/progress")
	case known.Phase == api.Ready && v.session.User == session.Setup:
		_ = v.redirect("/setup/result")
	case known.Phase == api.Ready:
		_ = v.redirect("/")
	default:
		return false
	}
	return true
}

// questionBody is a page of questions.
type questionBody struct {
	Page   wizard.Page
	Inputs []input
	Faults []api.Fault // all of the page's, for its head
	Back   string      // the page before; "": this is the first
	Last   bool
	// More is what single pages have beside questions.
	Times       []api.TimeAnswer
	Certificate string
	Request     string
	Roles       []roleView
	Others      []api.SetupDisk
	Now         api.NetworkNow
}

// onPage finds the page of the wizard that the path names, and the answers so far;
// a visit that belongs elsewhere ends here.
func onPage(next func(c *console, v *visit, p wizard.Page, d draft, known api.Setup) error) func(*console, *visit) error {
	return func(c *console, v *visit) error {
		p, ok := wizard.Find(v.r.PathValue("page"))
		if !ok {
			return c.nowhere(v)
		}
		d, known, err := c.draftOf(v)
		if err != nil {
			return err
		}
		if elsewhere(v, known) {
			return nil
		}
		return next(c, v, p, d, known)
	}
}

func (c *console) question(v *visit, p wizard.Page, d draft, known api.Setup) (err error) {
	var faults []api.Fault
	if d.seen[p.Name] {
		if faults, err = c.check(v, &d, known); err != nil {
			return err
		}
	}
	return c.show(v, http.StatusOK, p, &d, known, about(faults, p), nil)
}

// check gives everything that is wrong with the draft.
func (c *console) check(v *visit, d *draft, known api.Setup) ([]api.Fault, error) {
	faults, err := faultsOf(c.Agent.CheckSetup(v.ctx, d.final()))
	return slices.Concat(faults, d.uncertified(), d.answers.CheckDisks(known.Disks)), err
}

func (c *console) show(v *visit, status int, p wizard.Page, d *draft, known api.Setup, faults []api.Fault, times []api.TimeAnswer) error {
	pages := wizard.Pages()
	at := slices.IndexFunc(pages, func(x wizard.Page) bool { return x.Name == p.Name })
	body := questionBody{Page: p, Inputs: inputs(p, d, faults), Faults: faults, Times: times, Last: at == len(pages)-1,
		Certificate: d.certificate, Request: d.request, Now: known.Network}
	if at > 0 {
		body.Back = pages[at-1].Name
	}
	if p.Name == wizard.Storage {
		body.Roles, body.Others = storage(d, known.Disks, faults)
	}
	return c.render(v, status, "question", frame{Title: p.Title, Nav: nav(d, p.Name, faults), Form: true, Body: body})
}

// nav is the list of pages beside every page of the wizard.
func nav(d *draft, here string, faults []api.Fault) []navItem {
	var out []navItem
	for _, p := range wizard.Pages() {
		n := navItem{Name: p.Name, Title: p.Title, Here: p.Name == here}
		if d.seen[p.Name] {
			n.Mark = "ok"
		}
		if len(about(faults, p)) > 0 {
			n.Mark = "fault"
		}
		out = append(out, n)
	}
	return append(out, navItem{Name: reviewPage, Title: "Review and apply", Here: here == reviewPage})
}

// answer takes a page's form. Whatever was typed is kept; the browser goes on if
// nothing on the page is wrong, and to a page that was asked for in any case.
func (c *console) answer(v *visit, p wizard.Page, d draft, known api.Setup) error {
	refused := fill(v.r, p, &d)
	switch p.Name {
	case wizard.Certificate:
		d.certificate = oneOf(v.r.PostFormValue("certificate"), ownCertificate, uploadedCertificate, requestedCertificate)
	case wizard.Storage:
		refused = append(refused, chooseDisks(v.r, &d, known.Disks)...)
	}
	defer func() { c.drafts.keep(v.session, d) }()
	do := v.r.PostFormValue("do")
	if to, elsewhere := strings.CutPrefix(do, "to:"); elsewhere {
		if _, ok := wizard.Find(to); !ok {
			to = reviewPage
		}
		return v.redirect("/setup/" + to)
	}
	d.seen[p.Name] = true
	switch do {
	case "test-time":
		return c.testTime(v, p, &d, known, refused)
	case "request":
		return c.request(v, p, &d, known, refused)
	}
	faults, err := c.check(v, &d, known)
	if err != nil {
		return err
	}
	if mine := append(refused, about(faults, p)...); len(mine) > 0 {
		return c.show(v, http.StatusUnprocessableEntity, p, &d, known, mine, nil)
	}
	return v.redirect("/setup/" + next(p))
}

func next(p wizard.Page) string {
	pages := wizard.Pages()
	at := slices.IndexFunc(pages, func(x wizard.Page) bool { return x.Name == p.Name })
	if at+1 < len(pages) {
		return pages[at+1].Name
	}
	return reviewPage
}

// oneOf is the value if it is one of the choices, else the first of them.
func oneOf(value string, choices ...string) string {
	if slices.Contains(choices, value) {
		return value
	}
	return choices[0]
}

// testTime asks the servers that stand in the form for the time.
func (c *console) testTime(v *visit, p wizard.Page, d *draft, known api.Setup, faults []api.Fault) error {
	servers := strings.FieldsFunc(d.answers.Shown("network.ntp"), func(r rune) bool { return strings.ContainsRune(" ,;\t\n", r) })
	if len(servers) == 0 {
		servers = []string{""} // those of DHCP
	}
	var all []api.TimeAnswer
	for _, s := range servers[:min(len(servers), 4)] {
		answers, err := c.Agent.TestTime(v.ctx, s)
		if err != nil {
			f := wire(fault.Of(err))
			answers = []api.TimeAnswer{{Server: s, Fault: &f}}
		}
		all = append(all, answers...)
	}
	return c.show(v, http.StatusOK, p, d, known, faults, all)
}

// request makes a key for the certificate, which stays with the agent, and shows
// the request to take to an authority.
func (c *console) request(v *visit, p wizard.Page, d *draft, known api.Setup, faults []api.Fault) error {
	names := d.names(known)
	pem, err := c.Agent.SetupRequest(v.ctx, names)
	if err != nil {
		more, err := faultsOf(err)
		if err != nil {
			return err
		}
		return c.show(v, http.StatusUnprocessableEntity, p, d, known, append(faults, more...), nil)
	}
	d.request, d.certificate = string(pem), requestedCertificate
	return c.show(v, http.StatusOK, p, d, known, faults, nil)
}

// names are those that the certificate will need: external, host, addresses.
func (d *draft) names(known api.Setup) []string {
	var names []string
	for _, n := range []string{d.answers.Shown("registry.external_fqdn"), d.answers.Shown("network.hostname")} {
		if n != "" && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	addresses := known.Network.Addresses
	if d.answers.Shown("network.mode") == "static" {
		addresses = []string{d.answers.Shown("network.ip4"), d.answers.Shown("network.ip6")}
	}
	for _, a := range addresses {
		if p, err := netip.ParsePrefix(a); err == nil && p.Addr().IsGlobalUnicast() {
			names = append(names, p.Addr().String())
		}
	}
	return names
}

// roleView is a role's place in words.
type roleView struct {
	wizard.Place
	Title, About string
	Faults       []api.Fault
}

func storage(d *draft, disks []api.SetupDisk, faults []api.Fault) (roles []roleView, others []api.SetupDisk) {
	for _, p := range d.answers.Places(disks) {
		r := roleView{Place: p}
		switch p.Role {
		case diskrole.Data:
			r.Title, r.About = "Data", "images: by far the most"
		case diskrole.Database:
			r.Title, r.About = "Database", "PostgreSQL: some GiB"
		default:
			r.Title, r.About = "Log", "log messages: some GiB"
		}
		for _, f := range faults {
			if f.Field == "disks."+string(p.Role) {
				r.Faults = append(r.Faults, f)
			}
		}
		roles = append(roles, r)
	}
	for _, disk := range disks {
		if disk.State == "foreign" || disk.State == "system" {
			others = append(others, disk)
		}
	}
	return roles, others
}

// chooseDisks takes the choices of blank disks, each with its own confirmation.
func chooseDisks(r *http.Request, d *draft, disks []api.SetupDisk) []api.Fault {
	var faults []api.Fault
	taken := map[string]bool{}
	for _, role := range diskrole.All() {
		device := r.PostFormValue("disk." + string(role))
		field := "disks." + string(role)
		blank := slices.ContainsFunc(disks, func(x api.SetupDisk) bool { return x.Device == device && x.State == "blank" })
		switch {
		case device == "":
			continue
		case device == wizard.OnSystemDisk && role != diskrole.System:
			d.answers.Choose(role, device)
			continue
		case role == diskrole.System || !blank:
			faults = append(faults, api.Fault{Field: field, Text: "this is not a blank disk"})
			continue
		case taken[device]:
			faults = append(faults, api.Fault{Field: field, Text: device + " is chosen for another role already"})
			continue
		case r.PostFormValue("erase") == "":
			faults = append(faults, api.Fault{Field: field, Text: "formatting " + device + " is not confirmed", Hint: "tick the box below the disks"})
			continue
		}
		taken[device] = true
		d.answers.Choose(role, device)
	}
	return faults
}

// reviewBody is everything before it is applied.
type reviewBody struct {
	Sections []section
	Faults   int
	Moves    string // where the console will be
	Mark     string // of the answers that are shown
	Changed  bool   // they are others than those that were to be applied
}

type section struct {
	Href, Title string
	Lines       []answered
	Faults      []api.Fault
}

type answered struct{ Label, Value string }

func (c *console) review(v *visit) error {
	d, known, err := c.draftOf(v)
	if err != nil {
		return err
	}
	if elsewhere(v, known) {
		return nil
	}
	faults, err := c.check(v, &d, known)
	if err != nil {
		return err
	}
	return c.showReview(v, http.StatusOK, &d, known, faults, false)
}

func (c *console) showReview(v *visit, status int, d *draft, known api.Setup, faults []api.Fault, changed bool) error {
	body := reviewBody{Faults: len(faults), Moves: moves(d, v.r), Mark: c.drafts.mark(d), Changed: changed}
	for _, p := range wizard.Pages() {
		s := section{Href: "/setup/" + p.Name, Title: p.Title, Faults: about(faults, p)}
		for _, in := range inputs(p, d, nil) {
			s.Lines = append(s.Lines, answered{in.Label, in.spoken()})
		}
		switch p.Name {
		case wizard.Certificate:
			s.Lines = []answered{{"Certificate", map[string]string{ownCertificate: "from an authority of the appliance's own", uploadedCertificate: "uploaded", requestedCertificate: "for the request that was made here"}[d.certificate]}}
		case wizard.Storage:
			s.Lines = places(d, known.Disks)
		}
		s.Lines = slices.DeleteFunc(s.Lines, func(a answered) bool { return a.Value == "" })
		body.Sections = append(body.Sections, s)
	}
	return c.render(v, status, "review", frame{Title: "Review and apply", Nav: nav(d, reviewPage, faults), Body: body})
}

// places says where each role's data will be.
func places(d *draft, disks []api.SetupDisk) []answered {
	var out []answered
	roles, _ := storage(d, disks, nil)
	for _, r := range roles {
		where := "a directory of the system disk"
		switch {
		case r.Disk != nil && r.Disk.State == "ours":
			where = r.Disk.Device + " (its data is kept)"
		case r.Disk != nil:
			where = r.Disk.Device + " (blank, will be formatted)"
		case r.Open():
			where = "not chosen"
		case r.Chosen != "" && r.Chosen != wizard.OnSystemDisk:
			where = r.Chosen + " (will be formatted)"
		}
		out = append(out, answered{r.Title, where})
	}
	return out
}

// spoken is an answer in the review: never a secret, and no more than a line of a
// long one.
func (in input) spoken() string {
	switch in.Kind {
	case "password", "secretlines":
		if in.Given {
			return "is set"
		}
		return ""
	case "switch":
		if in.Choices[0].On {
			return "yes"
		}
		return "no"
	case "choice":
		for _, c := range in.Choices {
			if c.On {
				return c.Label
			}
		}
	case "lines":
		if n := strings.Count(strings.TrimSpace(in.Value), "\n") + 1; in.Value != "" {
			return strconv.Itoa(n) + map[bool]string{true: " line", false: " lines"}[n == 1]
		}
	}
	return in.Value
}

// moves says where the console will be if the answers take it from where the
// browser has it now; "" if they do not, or nobody can know.
func moves(d *draft, r *http.Request) string {
	if d.answers.Shown("network.mode") != "static" {
		return ""
	}
	p, err := netip.ParsePrefix(d.answers.Shown("network.ip4"))
	if err != nil {
		return ""
	}
	here := strings.Trim(host(r.Host), "[]")
	if a, err := netip.ParseAddr(here); err != nil || a == p.Addr() {
		return ""
	}
	return "https://" + net.JoinHostPort(p.Addr().String(), strconv.Itoa(setting.ConsolePort)) + "/"
}

func (c *console) apply(v *visit) error {
	d, known, err := c.draftOf(v)
	if err != nil {
		return err
	}
	if elsewhere(v, known) {
		return nil
	}
	changed := v.r.PostFormValue("answers") != c.drafts.mark(&d)
	faults, err := c.check(v, &d, known)
	if err == nil && len(faults) == 0 && !changed {
		faults, err = faultsOf(c.Agent.ApplySetup(v.ctx, d.final()))
	}
	if err != nil {
		return fmt.Errorf("the setup cannot begin: %w", err)
	}
	if len(faults) > 0 || changed {
		return c.showReview(v, http.StatusUnprocessableEntity, &d, known, faults, changed)
	}
	to := "/setup/progress"
	if m := moves(&d, v.r); m != "" {
		to += "?to=" + fixedAddress(&d)
	}
	return v.redirect(to)
}

// fixedAddress is the IPv4 address that was chosen; "" if there is none.
func fixedAddress(d *draft) string {
	p, err := netip.ParsePrefix(d.answers.Shown("network.ip4"))
	if err != nil {
		return ""
	}
	return p.Addr().String()
}
