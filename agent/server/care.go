package server

import (
	"strconv"

	"berth/agent/api"
	"berth/appliance/fault"
)

func bundleRoutes() []route {
	return []route{
		{"GET", "/support-bundles", admin, "", "The support bundles, the newest first", handle((*API).bundles)},
		{"POST", "/support-bundles", admin, "create a support bundle", "Begin to make a support bundle", handle((*API).createBundle)},
		{"GET", "/support-bundles/{id}", admin, "", "The state of a support bundle", handle((*API).bundle)},
		{"GET", "/support-bundles/{id}/content", admin, "download a support bundle", "The support bundle: tar, compressed with gzip", handle((*API).downloadBundle)},
		{"DELETE", "/support-bundles/{id}", admin, "delete a support bundle", "Delete a support bundle", handle((*API).deleteBundle)},
	}
}

func configurationRoutes() []route {
	return []route{
		{"GET", "/configuration", admin, "", "All settings as YAML, without secrets", handle((*API).export)},
		{"POST", "/configuration/validate", admin, "", "What applying a configuration would change, or all that is wrong with it", handle((*API).validate)},
		{"POST", "/configuration/apply", admin, "apply a configuration", "Apply what is different in a configuration; sections that it does not name stay as they are", handle((*API).apply)},
	}
}

func powerRoutes() []route {
	return []route{
		{"GET", "/power", admin, "", "What is planned", handle((*API).powerPlan)},
		{"POST", "/power/{action}", admin, "power", "Reboot or shut down, at once or later", handle((*API).power)},
		{"DELETE", "/power", admin, "cancel power", "Take a planned reboot or shutdown back", handle((*API).cancelPower)},
	}
}

func setupRoutes() []route {
	return []route{
		{"GET", "/setup", setup, "", "Where the first boot stands, and what it was told so far, without secrets", handle((*API).setup)},
		{"POST", "/setup/check", setup, "", "Everything that is wrong with the answers", handle((*API).checkSetup)},
		{"POST", "/setup/apply", setup, "set up", "Begin the first boot with the answers", handle((*API).applySetup)},
		{"POST", "/setup/csr", setup, "request a certificate", "Make a key, and a request for a certification authority (PKCS #10, PEM)", handle((*API).setupRequest)},
	}
}

func (a *API) bundles(*request, none) ([]api.Bundle, error) { return a.o.Bundles.List() }

func (a *API) createBundle(r *request, _ none) (accepted[api.Bundle], error) {
	b, err := a.o.Bundles.Create(r.Context())
	r.note(b.ID, "")
	return accepted[api.Bundle]{api.Prefix + "/support-bundles/" + b.ID, b}, err
}

func (a *API) bundle(_ *request, in struct {
	ID string `path:"id"`
}) (api.Bundle, error) {
	return a.o.Bundles.Get(in.ID)
}

func (a *API) downloadBundle(r *request, in struct {
	ID string `path:"id"`
}) (file, error) {
	r.note(in.ID, "")
	f, b, err := a.o.Bundles.Open(in.ID)
	if err != nil {
		return file{}, err
	}
	return file{"berth-support-" + b.ID + ".tar.gz", b.Bytes, f}, nil
}

func (a *API) deleteBundle(r *request, in struct {
	ID string `path:"id"`
}) (done, error) {
	r.note(in.ID, "")
	return done{}, a.o.Bundles.Delete(in.ID)
}

func (a *API) export(r *request, _ none) (text, error) {
	yaml, err := a.o.Machine.Export(r.Context())
	return text{"application/yaml", "berth-appliance.yaml", yaml}, err
}

func (a *API) validate(r *request, in struct {
	Text string `body:"application/yaml"`
}) (api.Applied, error) {
	return a.o.Machine.Validate(r.Context(), in.Text)
}

func (a *API) apply(r *request, in struct {
	Text string `body:"application/yaml"`
}) (api.Applied, error) {
	done, err := a.o.Machine.Apply(r.Context(), in.Text)
	fields := make([]string, len(done.Changes))
	for i, c := range done.Changes {
		fields[i] = c.Field
	}
	r.note("", join(fields))
	return done, err
}

// plan is what is planned, or an empty action.
func (a *API) powerPlan(*request, none) (api.PowerState, error) {
	if s := a.o.Machine.PowerPlan(); s != nil {
		return *s, nil
	}
	return api.PowerState{}, fault.New(fault.NotFound, "neither a reboot nor a shutdown is planned")
}

func (a *API) power(r *request, in struct {
	Action string    `path:"action" doc:"reboot or shutdown"`
	Body   api.Power `body:",optional"`
}) (accepted[api.PowerState], error) {
	r.note(in.Action, "in "+strconv.Itoa(in.Body.Seconds)+" s: "+in.Body.Reason)
	s, err := a.o.Machine.Power(r.Context(), in.Action, in.Body, r.caller.user)
	return accepted[api.PowerState]{api.Prefix + "/power", s}, err
}

func (a *API) cancelPower(r *request, _ none) (done, error) {
	return done{}, a.o.Machine.CancelPower(r.Context())
}

func (a *API) setup(r *request, _ none) (api.Setup, error) { return a.o.Machine.Setup(r.Context()) }

func (a *API) checkSetup(r *request, in struct {
	Body api.Answers `body:""`
}) (done, error) {
	return done{}, a.o.Machine.CheckSetup(r.Context(), in.Body)
}

func (a *API) applySetup(r *request, in struct {
	Body api.Answers `body:""`
}) (accepted[api.About], error) {
	if err := a.o.Machine.ApplySetup(r.Context(), in.Body); err != nil {
		return accepted[api.About]{}, err
	}
	about, err := a.o.Machine.About(r.Context())
	return accepted[api.About]{api.Prefix + "/setup", about}, err
}

func (a *API) setupRequest(r *request, in struct {
	Body api.CertificateRequest `body:",optional"`
}) (text, error) {
	pem, err := a.o.Machine.SetupRequest(r.Context(), in.Body.Names)
	return text{"application/x-pem-file", "berth.csr", pem}, err
}
