package core

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"strings"

	"berth/appliance/fault"
)

// A browser sends cookies whoever made it send the request. So a request that
// changes something and is known by a cookie must also say what only a page of
// ours can know: the token that the cookie _gorilla_csrf belongs to, in the
// header X-Harbor-CSRF-Token. Names and manners are Harbor's, whose clients know
// them: every answer to a request that needs the check carries a token.
//
// The cookie holds 32 random bytes and a MAC over them. The token is the same
// random bytes under a fresh mask, so that compressed answers give nothing away
// (BREACH).
const (
	csrfCookie = "_gorilla_csrf"
	csrfHeader = "X-Harbor-Csrf-Token"
	csrfField  = "gorilla.csrf.Token" // of a form, which cannot send headers
	csrfLife   = 12 * 60 * 60         // seconds
	csrfBytes  = 32
)

// guarded reports whether a request needs the check: it is one of the browser's
// own, or comes with a session's cookie.
func guarded(r *http.Request) bool {
	if strings.HasPrefix(r.URL.Path, "/c/") {
		return true
	}
	_, err := r.Cookie(sessionCookie)
	return err == nil
}

// guard hands out a token, and refuses what needs one and has none.
func (a *API) guard(w http.ResponseWriter, r *http.Request) error {
	base, ok := a.csrfBase(r)
	if !ok {
		base = make([]byte, csrfBytes)
		rand.Read(base)
		http.SetCookie(w, &http.Cookie{Name: csrfCookie, Value: a.signBase(base), Path: "/", MaxAge: csrfLife,
			HttpOnly: true, Secure: overTLS(r), SameSite: http.SameSiteStrictMode})
	}
	w.Header().Set(csrfHeader, masked(base))
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		w.Header().Add("Vary", "Cookie")
		return nil
	}
	token := r.Header.Get(csrfHeader)
	if strings.HasPrefix(r.URL.Path, "/c/") {
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		if token == "" {
			token = r.PostFormValue(csrfField)
		}
	}
	if token == "" {
		return fault.New(fault.Forbidden, "CSRF token not found in request")
	}
	if sent, good := unmasked(token); !ok || !good || subtle.ConstantTimeCompare(sent, base) != 1 {
		return fault.New(fault.Forbidden, "CSRF token invalid")
	}
	w.Header().Add("Vary", "Cookie")
	return nil
}

// csrfBase reads the random bytes out of the request's cookie.
func (a *API) csrfBase(r *http.Request) ([]byte, bool) {
	c, err := r.Cookie(csrfCookie)
	if err != nil {
		return nil, false
	}
	raw, err := base64.RawURLEncoding.DecodeString(c.Value)
	if err != nil || len(raw) != csrfBytes+sha256.Size {
		return nil, false
	}
	base := raw[:csrfBytes:csrfBytes]
	return base, hmac.Equal(raw[csrfBytes:], a.csrfMAC(base))
}

func (a *API) signBase(base []byte) string {
	return base64.RawURLEncoding.EncodeToString(append(append([]byte{}, base...), a.csrfMAC(base)...))
}

func (a *API) csrfMAC(base []byte) []byte {
	h := hmac.New(sha256.New, a.csrfKey)
	h.Write(base)
	return h.Sum(nil)
}

func masked(base []byte) string {
	out := make([]byte, 2*csrfBytes)
	rand.Read(out[:csrfBytes])
	subtle.XORBytes(out[csrfBytes:], out[:csrfBytes], base)
	return base64.StdEncoding.EncodeToString(out)
}

func unmasked(token string) ([]byte, bool) {
	raw, err := base64.StdEncoding.DecodeString(token)
	if err != nil || len(raw) != 2*csrfBytes {
		return nil, false
	}
	subtle.XORBytes(raw[:csrfBytes], raw[:csrfBytes], raw[csrfBytes:])
	return raw[:csrfBytes], true
}

// overTLS reports whether the client came to the front door over TLS.
func overTLS(r *http.Request) bool { return r.Header.Get("X-Forwarded-Proto") == "https" }
