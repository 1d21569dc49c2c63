// Package console has the appliance's pages for browsers at :5480.
//
// Before the appliance is set up they are the wizard, for whoever has the one-time
// code from the VM's console; afterwards a login, the state, and what is needed most:
// restart of services and machine, support bundles. They are plain HTML
// that is made here: they work without a script, at any width, light and dark, and
// load nothing from elsewhere.
//
// The pages hold no rules. They ask the agent in the name of whoever is logged in,
// so that the API's table of routes decides what that person may do, and its audit
// trail knows who it was.
package console

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"html/template"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"path"

	"berth/agent/api"
	"berth/agent/client"
	"berth/agent/session"
	"berth/agent/trail"
	"berth/appliance/fault"
)

//go:embed pages static
var files embed.FS

// Agent is what the pages ask; a *client.Client is one.
type Agent interface {
	About(ctx context.Context) (api.About, error)
	Status(ctx context.Context) (api.Status, error)
	Services(ctx context.Context) ([]api.Service, error)
	Disks(ctx context.Context) (api.Disks, error)
	Certificates(ctx context.Context) (api.Certificates, error)
	CA(ctx context.Context) (pem []byte, err error)
	TestTime(ctx context.Context, server string) ([]api.TimeAnswer, error)
	Setup(ctx context.Context) (api.Setup, error)
	CheckSetup(ctx context.Context, a api.Answers) error
	ApplySetup(ctx context.Context, a api.Answers) error
	SetupRequest(ctx context.Context, names []string) (pem []byte, err error)
	Act(ctx context.Context, service, action string) (api.Service, error)
	Power(ctx context.Context, action string, p api.Power) (api.PowerState, error)
	CancelPower(ctx context.Context) error
	Bundles(ctx context.Context) ([]api.Bundle, error)
	CreateBundle(ctx context.Context) (api.Bundle, error)
	DownloadBundle(ctx context.Context, id string) (io.ReadCloser, error)
	DeleteBundle(ctx context.Context, id string) error
}

var _ Agent = (*client.Client)(nil)

// Options are what the pages need.
type Options struct {
	// Agent answers over the unix socket, in the name of the context's client.Behalf.
	Agent    Agent
	Sessions *session.Store
	Trail    *trail.Trail
	Log      *slog.Logger
}

// maxForm is the size of the largest form: four files of 64 KiB, and the rest.
const maxForm = 1 << 20

// maxLogin is the size of the largest form of who is not logged in.
const maxLogin = 16 << 10

type console struct {
	Options
	mux    *http.ServeMux
	pages  *template.Template
	drafts *drafts
	origin *http.CrossOriginProtection
}

// Handler makes the pages. They are for HTTPS alone: their cookie is.
func Handler(o Options) (http.Handler, error) {
	pages, err := template.New("").Funcs(functions()).ParseFS(files, "pages/*.html")
	if err != nil {
		return nil, err
	}
	static, err := fs.Sub(files, "static")
	if err != nil {
		return nil, err
	}
	c := &console{Options: o, mux: http.NewServeMux(), pages: pages, drafts: newDrafts(), origin: http.NewCrossOriginProtection()}
	c.mux.Handle("GET /static/{file}", http.StripPrefix("/static/", cached(http.FileServerFS(static))))
	for _, rt := range routes {
		c.mux.HandleFunc(rt.pattern, c.serve(rt))
	}
	c.origin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		guard(w.Header())
		c.fail(&visit{w: w, r: r}, fault.New(fault.Forbidden, "The request comes from another site's page."))
	}))
	return c.origin.Handler(c.mux), nil
}

// A route is a page: its pattern, who may see it, and what makes it.
type route struct {
	pattern string
	who     who
	handle  func(*console, *visit) error
}

// who says who may see a page. The zero value admits nobody.
type who uint8

const (
	nobody  who = iota
	anybody     // logged in or not
	setup       // whoever has the code, and administrators
	admin       // who has the password of the console or of root
)

// The whole console.
var routes = []route{
	{"GET /{$}", anybody, (*console).home},
	{"GET /login", anybody, (*console).loginPage},
	{"POST /login", anybody, (*console).login},
	{"POST /logout", setup, (*console).logout},
	{"GET /ca.crt", anybody, (*console).ca},
	{"GET /setup/{page}", setup, onPage((*console).question)},
	{"POST /setup/{page}", setup, onPage((*console).answer)},
	{"GET /setup/review", setup, (*console).review},
	{"POST /setup/apply", setup, (*console).apply},
	{"POST /setup/retry", setup, (*console).retry},
	{"GET /setup/progress", setup, (*console).progress},
	{"GET /setup/result", setup, (*console).result},
	{"GET /services/{name}/{action}", admin, (*console).actPage},
	{"POST /services/{name}/{action}", admin, (*console).act},
	{"GET /power/{action}", admin, (*console).powerPage},
	{"POST /power/{action}", admin, (*console).power},
	{"POST /power/cancel", admin, (*console).cancelPower},
	{"GET /support", admin, (*console).support},
	{"POST /support", admin, (*console).createBundle},
	{"GET /support/{id}", admin, (*console).downloadBundle},
	{"POST /support/{id}/delete", admin, (*console).deleteBundle},
	{"/", anybody, (*console).nowhere},
}

// A visit is one request of a browser.
type visit struct {
	w       http.ResponseWriter
	r       *http.Request
	ctx     context.Context // asks the agent in the visitor's name
	session *session.Session
}

// policy lets a page use what comes from here, and send forms here alone.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

func guard(h http.Header) {
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
}

// serve is the way of every request: headers, session, token, page.
func (c *console) serve(rt route) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		guard(w.Header())
		v := &visit{w: w, r: r, ctx: r.Context()}
		of := c.Sessions.Of
		if r.URL.Query().Has("part") {
			of = c.Sessions.Peek // a page that follows by itself keeps nobody logged in
		}
		if s, ok := of(r); ok {
			v.session = s
			v.ctx = client.For(r.Context(), client.Behalf{User: s.User, Address: host(r.RemoteAddr), Over: local(r)})
		}
		if err := c.admit(rt, v); err != nil {
			c.fail(v, err)
			return
		}
		if rt.who != anybody && v.session == nil {
			_ = v.strange()
			return
		}
		if err := rt.handle(c, v); err != nil {
			c.fail(v, err)
		}
	}
}

// admit reads the form of a change and looks for the session's token in it.
func (c *console) admit(rt route, v *visit) error {
	most, size := int64(maxForm), "1 MiB"
	if v.session == nil {
		most, size = maxLogin, "16 KiB" // a stranger has only a password to send, and not our memory to fill
	}
	if v.r.Method == http.MethodPost && (rt.who == anybody || v.session != nil) {
		v.r.Body = http.MaxBytesReader(v.w, v.r.Body, most)
		if err := parse(v.r); err != nil {
			return fault.Wrap(fault.Invalid, err, "The form cannot be read, or is larger than %s.", size).WithHint("Go back, and try again with smaller files.")
		}
	}
	switch s := v.session; {
	case rt.who == nobody:
		return fault.New(fault.Forbidden, "Nobody may see this page.")
	case rt.who == anybody || s == nil:
		return nil
	case v.r.Method == http.MethodPost && !s.Authentic(v.r.PostFormValue("csrf")):
		return fault.New(fault.Forbidden, "The form is an old one, or comes from elsewhere.").WithHint("Open the page again and repeat it.")
	case rt.who == admin && s.User == session.Setup:
		return fault.New(fault.Forbidden, "The setup's code does not open this page.").WithHint("Log in as admin.")
	}
	return nil
}

func parse(r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return err
	}
	if err := r.ParseMultipartForm(maxForm); err != nil && !errors.Is(err, http.ErrNotMultipart) {
		return err
	}
	return nil
}

func host(hostport string) string {
	h, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return hostport
	}
	return h
}

func local(r *http.Request) string {
	if at, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		return at.String()
	}
	return ""
}

// cached lets browsers keep files for a while; they come with the program.
func cached(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=300")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

// frame is what every page is given.
type frame struct {
	Title string
	Host  string // as the browser calls the appliance
	User  string // "" if nobody is logged in
	CSRF  string
	Path  string
	Nav   []navItem
	// Form is whether the page has a form that keeps its answers when somebody goes
	// to another page of Nav.
	Form bool
	// Refresh is after how many seconds the page is loaded again; 0: never.
	Refresh int
	Body    any
}

type navItem struct {
	Name, Title string // Name is the last part of the page's path
	Here        bool
	Mark        string // "", "ok", "fault"
}

// render makes a page whole before it sends anything, so that a mistake in a
// template is an error and not half a page.
func (c *console) render(v *visit, status int, name string, f frame) error {
	if v.session != nil {
		f.User, f.CSRF = v.session.User, v.session.CSRF
	}
	f.Path, f.Host = v.r.URL.Path, host(v.r.Host)
	var b bytes.Buffer
	if err := c.pages.ExecuteTemplate(&b, name+".html", f); err != nil {
		return err
	}
	v.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	v.w.WriteHeader(status)
	_, err := v.w.Write(b.Bytes())
	if err != nil {
		c.Log.Debug("the browser has left", "err", err)
	}
	return nil
}

// statuses are those of fault's kinds that pages meet; any other is 500.
func status(err error) int {
	switch fault.Of(err).Kind {
	case fault.Invalid:
		return http.StatusBadRequest
	case fault.Unauthenticated:
		return http.StatusUnauthorized
	case fault.Forbidden:
		return http.StatusForbidden
	case fault.NotFound:
		return http.StatusNotFound
	case fault.Conflict, fault.Precondition:
		return http.StatusConflict
	case fault.TooMany:
		return http.StatusTooManyRequests
	case fault.Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// fail is the page for what went wrong.
func (c *console) fail(v *visit, err error) {
	code := status(err)
	if code >= 500 {
		c.Log.Error("a page cannot be made", "path", v.r.URL.Path, "err", err)
	}
	f := fault.Of(err)
	body := struct{ Text, Hint string }{f.Text, f.Hint}
	if rerr := c.render(v, code, "fault", frame{Title: "Not possible", Body: body}); rerr != nil {
		c.Log.Error("the page for a fault cannot be made", "err", rerr)
		http.Error(v.w, f.Text, code)
	}
}

func (c *console) nowhere(v *visit) error {
	return fault.New(fault.NotFound, "There is no page at %s.", path.Clean(v.r.URL.Path))
}

// strange leads whoever has no session to the login; with the cookie of one that has
// ended, the page says so.
func (v *visit) strange() error {
	if _, err := v.r.Cookie(session.Cookie); err == nil {
		return v.redirect("/login?ended")
	}
	return v.redirect("/login")
}

func (v *visit) redirect(to string) error {
	http.Redirect(v.w, v.r, to, http.StatusSeeOther)
	return nil
}
