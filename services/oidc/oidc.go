// Package oidc lets people log in at an OpenID Connect provider (OpenID Connect
// Core 1.0), with the authorization code flow.
//
// Begin gives the address of the provider's login page, and an Attempt that the
// browser must bring back: with the state that ties the answer to the browser,
// the nonce that ties the ID token to the attempt, and the PKCE verifier
// (RFC 7636) without which a stolen code is worth nothing. Finish exchanges the
// code, checks the ID token's signature, issuer, audience, time and nonce, and
// says who it is. The claims of the user info endpoint count beside those of the
// token, if they are about the same subject.
//
// The provider's own description is read when it is first needed, and again
// every hour or when the settings change.
package oidc

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/sync/singleflight"

	"berth/appliance/fault"
	"berth/appliance/secret"
	"berth/services/account"
	"berth/services/outbound"
)

// Attempt is a login that has begun, and not ended yet. It is secret.
type Attempt struct {
	State, Nonce, Verifier string
}

// Person is who has logged in.
type Person struct {
	account.External
	SubIss  string      // subject and issuer, one after the other
	IDToken secret.Text // for the provider's logout
	Named   bool        // the provider says the user name, by the claim that is set for it
}

// Client speaks with the provider that the settings name at that time.
type Client struct {
	current func(context.Context) (Settings, error)
	dialer  *outbound.Dialer

	mu      sync.Mutex
	known   *provider
	reading singleflight.Group
}

// provider is a provider whose description has been read.
type provider struct {
	*gooidc.Provider
	settings Settings
	client   *http.Client
	end      string // where its sessions are ended; "" = nowhere
	read     time.Time
}

const readAgain = time.Hour

// New makes a client. current gives the settings, which may change at any time.
func New(current func(context.Context) (Settings, error), dialer *outbound.Dialer) *Client {
	return &Client{current: current, dialer: dialer}
}

func (c *Client) provider(ctx context.Context) (*provider, error) {
	s, err := c.current(ctx)
	if err != nil {
		return nil, err
	}
	if s.Endpoint == "" || s.ClientID == "" {
		return nil, fault.New(fault.Precondition, "the OIDC provider is not set up").WithHint("set oidc_endpoint, oidc_client_id and oidc_client_secret")
	}
	c.mu.Lock()
	known := c.known
	c.mu.Unlock()
	if known != nil && known.settings == s && time.Since(known.read) < readAgain {
		return known, nil
	}
	// Strangers can ask for a login page: whoever comes meanwhile waits for the
	// same answer.
	read, err, _ := c.reading.Do("", func() (any, error) {
		p, err := discover(context.WithoutCancel(ctx), s, c.dialer)
		if err == nil {
			c.mu.Lock()
			c.known = p
			c.mu.Unlock()
		}
		return p, err
	})
	if err != nil {
		return nil, err
	}
	if p := read.(*provider); p.settings == s {
		return p, nil
	}
	return nil, fault.New(fault.Unavailable, "the OIDC provider's settings have just changed").WithHint("try again")
}

// discover reads a provider's description (OpenID Connect Discovery 1.0 §4).
func discover(ctx context.Context, s Settings, dialer *outbound.Dialer) (*provider, error) {
	client, err := newHTTP(s, dialer)
	if err != nil {
		return nil, err
	}
	// The provider keeps the context for fetching keys later: it must not end.
	found, err := gooidc.NewProvider(gooidc.ClientContext(context.WithoutCancel(ctx), client), s.Endpoint)
	if err != nil {
		return nil, s.explain(err)
	}
	var more struct {
		End string `json:"end_session_endpoint"`
	}
	if err := found.Claims(&more); err != nil {
		return nil, s.explain(err)
	}
	return &provider{found, s, client, more.End, time.Now()}, nil
}

func (p *provider) oauth(callback string) *oauth2.Config {
	return &oauth2.Config{ClientID: p.settings.ClientID, ClientSecret: p.settings.ClientSecret.Reveal(), Endpoint: p.Endpoint(),
		RedirectURL: callback, Scopes: p.settings.scopes()}
}

// Begin gives an attempt and the address of the provider's login page. callback
// is our address that the provider sends the browser back to.
func (c *Client) Begin(ctx context.Context, callback string) (a Attempt, page string, err error) {
	p, err := c.provider(ctx)
	if err != nil {
		return a, "", err
	}
	a = Attempt{State: oauth2.GenerateVerifier(), Nonce: oauth2.GenerateVerifier(), Verifier: oauth2.GenerateVerifier()} // 32 random bytes each
	options := []oauth2.AuthCodeOption{gooidc.Nonce(a.Nonce), oauth2.S256ChallengeOption(a.Verifier)}
	for name, value := range p.settings.extra() {
		options = append(options, oauth2.SetAuthURLParam(name, value))
	}
	return a, p.oauth(callback).AuthCodeURL(a.State, options...), nil
}

// Finish takes the parameters that the provider sent the browser back with, and
// says who has logged in. Fault: Unauthenticated, if nobody has.
func (c *Client) Finish(ctx context.Context, a Attempt, answer url.Values, callback string) (Person, error) {
	if a.State == "" || subtle.ConstantTimeCompare([]byte(a.State), []byte(answer.Get("state"))) != 1 {
		return Person{}, fault.New(fault.Unauthenticated, "this login did not begin in this browser, or began too long ago").WithHint("log in again")
	}
	if refused := answer.Get("error"); refused != "" {
		return Person{}, fault.New(fault.Unauthenticated, "the provider refused the login: %q %q", clip(refused), clip(answer.Get("error_description")))
	}
	p, err := c.provider(ctx)
	if err != nil {
		return Person{}, err
	}
	ctx = gooidc.ClientContext(ctx, p.client)
	token, err := p.oauth(callback).Exchange(ctx, answer.Get("code"), oauth2.VerifierOption(a.Verifier))
	if err != nil {
		return Person{}, p.settings.explainExchange(err)
	}
	raw, _ := token.Extra("id_token").(string)
	id, err := p.Verifier(&gooidc.Config{ClientID: p.settings.ClientID}).Verify(ctx, raw)
	if err != nil {
		return Person{}, fault.Wrap(fault.Unauthenticated, err, "the provider's ID token cannot be accepted").WithHint("the log has the reason; the clocks of this machine and the provider's may differ")
	}
	if subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(a.Nonce)) != 1 {
		return Person{}, fault.New(fault.Unauthenticated, "the provider's ID token belongs to another login").WithHint("log in again")
	}
	claims, err := p.claims(ctx, id, token)
	if err != nil {
		return Person{}, err
	}
	person := p.settings.person(claims)
	person.SubIss, person.IDToken = id.Subject+id.Issuer, secret.Text(raw)
	return person, nil
}

// Verify says whose an ID token is that a client has got from the provider
// itself: subject and issuer. Fault: Unauthenticated, if it is not good for us.
func (c *Client) Verify(ctx context.Context, raw string) (subIss string, err error) {
	p, err := c.provider(ctx)
	if err != nil {
		return "", err
	}
	id, err := p.Verifier(&gooidc.Config{ClientID: p.settings.ClientID}).Verify(gooidc.ClientContext(ctx, p.client), raw)
	if err != nil {
		return "", fault.Wrap(fault.Unauthenticated, err, "the ID token cannot be accepted")
	}
	return id.Subject + id.Issuer, nil
}

// claims are the ID token's, and those of the user info endpoint that the token
// lacks. Without the endpoint's, the token's must do.
func (p *provider) claims(ctx context.Context, id *gooidc.IDToken, token *oauth2.Token) (map[string]any, error) {
	all := map[string]any{}
	if p.UserInfoEndpoint() != "" {
		info, err := p.UserInfo(ctx, oauth2.StaticTokenSource(token))
		if err == nil && info.Subject != id.Subject { // OpenID Connect Core 1.0 §5.3.2
			return nil, fault.New(fault.Unauthenticated, "the provider speaks of two different users")
		}
		if err == nil {
			err = info.Claims(&all)
		}
		if err != nil {
			clear(all)
		}
	}
	if err := id.Claims(&all); err != nil {
		return nil, fault.Wrap(fault.Unauthenticated, err, "the provider's ID token cannot be read")
	}
	return all, nil
}

// LogoutPage gives the address where the provider ends its own session and sends
// the browser to back (OpenID Connect RP-Initiated Logout 1.0); "" if it has none.
func (c *Client) LogoutPage(ctx context.Context, idToken secret.Text, back string) (string, error) {
	p, err := c.provider(ctx)
	if err != nil || p.end == "" {
		return "", err
	}
	u, err := url.Parse(p.end)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return "", fault.Wrap(fault.Unavailable, err, "the provider's address for logging out cannot be used")
	}
	q := u.Query()
	q.Set("client_id", p.settings.ClientID)
	q.Set("post_logout_redirect_uri", back)
	if idToken != "" {
		q.Set("id_token_hint", idToken.Reveal())
	}
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// Ping tries a provider's address. Its fault says what is wrong.
func Ping(ctx context.Context, s Settings, dialer *outbound.Dialer) error {
	_, err := discover(ctx, s, dialer)
	return err
}

// clip keeps what comes from outside short in a message.
func clip(s string) string {
	const most = 120
	s = strings.ToValidUTF8(s, "?")
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

func (s Settings) explainExchange(err error) error {
	if e, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		if e.ErrorCode == "invalid_client" || e.ErrorCode == "unauthorized_client" {
			return fault.Wrap(fault.Unavailable, err, "the provider does not accept our client id or secret").On("oidc_client_secret")
		}
		return fault.Wrap(fault.Unauthenticated, fmt.Errorf("%s: %s", e.ErrorCode, e.ErrorDescription), "the provider does not accept the login's code").WithHint("log in again")
	}
	return s.explain(err)
}
