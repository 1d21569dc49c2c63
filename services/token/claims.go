// Package token is the Docker token service: it turns a login into a short-lived
// signed token that says what its bearer may do with which repositories.
//
// Two halves share the claims and nothing else. Service signs, and is the only
// one that can read the private keys (they are sealed in the database with a key
// file of its own). Verifier checks with public keys alone; it is what the
// registry uses.
//
// Protocol: the Docker Registry token specification ("Token Authentication
// Specification", "Token Scope Documentation", "OAuth2 Token Authentication").
package token

import (
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Harbor's names, which its clients and scripts know.
const (
	Issuer   = "harbor-token-issuer"
	Audience = "harbor-registry" // also the service parameter
)

// leeway is how far clocks may differ (Harbor's, too).
const leeway = time.Minute

// Access is what a token grants on one resource.
type Access struct {
	Type    string   `json:"type"` // "repository" or "registry"
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
	// Tags are patterns that the actions are limited to, where they name a tag;
	// none is no limit. Another entry for the same name may have more actions.
	Tags []string `json:"tags,omitempty"`
}

// claims are the token's content (RFC 7519). aud is a plain string, as Harbor
// has it, not jwt's usual list.
type claims struct {
	Iss string `json:"iss"`
	Sub string `json:"sub,omitempty"`
	Aud string `json:"aud"`
	Exp int64  `json:"exp"`
	Nbf int64  `json:"nbf"`
	Iat int64  `json:"iat"`
	Jti string `json:"jti"`
	// Request is the id of the request that got the token. With it the log shows all
	// requests of one push together.
	Request string `json:"request,omitempty"`
	// Trace is the span in which the token was made, as a traceparent, while traces
	// are on: with it a push is one trace (see services/trace).
	Trace  string   `json:"trace,omitempty"`
	Access []Access `json:"access"`
}

// The methods make claims a jwt.Claims, which checks them.

func (c *claims) GetExpirationTime() (*jwt.NumericDate, error) {
	return jwt.NewNumericDate(time.Unix(c.Exp, 0)), nil
}
func (c *claims) GetIssuedAt() (*jwt.NumericDate, error) {
	return jwt.NewNumericDate(time.Unix(c.Iat, 0)), nil
}
func (c *claims) GetNotBefore() (*jwt.NumericDate, error) {
	return jwt.NewNumericDate(time.Unix(c.Nbf, 0)), nil
}
func (c *claims) GetIssuer() (string, error)             { return c.Iss, nil }
func (c *claims) GetSubject() (string, error)            { return c.Sub, nil }
func (c *claims) GetAudience() (jwt.ClaimStrings, error) { return jwt.ClaimStrings{c.Aud}, nil }
