package server

import (
	"context"

	"berth/agent/api"
	"berth/agent/session"
	"berth/appliance/fault"
	"berth/appliance/secret"
)

func openRoutes() []route {
	return []route{
		{"GET", "/about", anybody, "", "What this is, and whether it has been set up", handle((*API).about)},
		{"GET", "/openapi.json", anybody, "", "This document", handle((*API).document)},
		{"POST", "/sessions", anybody, "log in", "Log in with a browser: by name and password, or by the setup code", handle((*API).login)},
		{"GET", "/sessions/current", setup, "", "Who is logged in", handle((*API).current)},
		{"DELETE", "/sessions/current", setup, "log out", "Log out", handle((*API).logout)},
	}
}

func (a *API) about(r *request, _ none) (api.About, error) { return a.o.Machine.About(r.Context()) }

func (a *API) document(*request, none) (rawJSON, error) { return Document() }

func (a *API) login(r *request, in struct {
	Body api.Login `body:""`
}) (created[api.Session], error) {
	var made *session.Session
	var err error
	user := in.Body.Username
	switch {
	case in.Body.Code != "" && in.Body.Username+in.Body.Password != "":
		return created[api.Session]{}, fault.New(fault.Invalid, "it is either a code, or a name and a password").On("code")
	case in.Body.Code != "":
		user = session.Setup
		made, err = a.o.Sessions.LoginByCode(r.Context(), secret.Text(in.Body.Code), r.caller.address)
	case in.Body.Username == "":
		return created[api.Session]{}, fault.New(fault.Invalid, "it is missing").On("username").WithHint("log in as admin, with the console's password")
	default:
		made, err = a.o.Sessions.Login(r.Context(), user, secret.Text(in.Body.Password), r.caller.address)
	}
	if r.caller.user == "" {
		r.caller.user = user // for the trail: who it claims to be
	}
	if err != nil {
		return created[api.Session]{}, err
	}
	session.SetCookie(r.writer, made)
	return created[api.Session]{api.Prefix + "/sessions/current", wireSession(made)}, nil
}

func wireSession(s *session.Session) api.Session {
	return api.Session{User: s.User, CSRF: s.CSRF, Begun: s.Begun, Ends: s.Ends()}
}

func (a *API) current(r *request, _ none) (api.Session, error) {
	if r.caller.session == nil {
		return api.Session{User: r.caller.user}, nil
	}
	return wireSession(r.caller.session), nil
}

func (a *API) logout(r *request, _ none) (done, error) {
	a.o.Sessions.End(r.writer, r.Request)
	return done{}, nil
}

// Alive says whether the API can answer at all: for the watchdog.
func (a *API) Alive(ctx context.Context) error {
	_, err := a.o.Machine.About(ctx)
	return err
}
