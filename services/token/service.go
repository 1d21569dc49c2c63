package token

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"berth/appliance/fault"
	"berth/appliance/logger"
	"berth/appliance/secret"
	"berth/services/access"
	"berth/services/account"
	"berth/services/configuration"
	"berth/services/project"
	"berth/services/reference"
	"berth/services/trace"
)

// Options configure a Service.
type Options struct {
	Pool     *pgxpool.Pool
	Key      secret.Key // seals the signing keys; only the token service has it
	Accounts *account.Store
	Projects *project.Store
	Rotation Rotation // zero: DefaultRotation
	// Configuration says how long a token lives (token_expiration).
	Configuration *configuration.Store
	Log           *slog.Logger
	// Metrics is where the service registers its own; nil = nowhere.
	Metrics prometheus.Registerer
	// Tracer makes spans; nil = none.
	Tracer *trace.Tracer
}

// Service signs tokens. It is the http.Handler of /service/token.
type Service struct {
	Options
	keys    *keyring
	meters  meters
	handler http.Handler // answer, measured
}

// New makes a Service with a key to sign with.
func New(ctx context.Context, o Options) (*Service, error) {
	if o.Rotation == (Rotation{}) {
		o.Rotation = DefaultRotation
	}
	s := &Service{Options: o, keys: &keyring{pool: o.Pool, seal: o.Key, rotation: o.Rotation}, meters: newMeters(o.Metrics)}
	s.handler = o.Tracer.Handler("/service/token", s.meters.requests.Serve(http.HandlerFunc(s.answer)))
	return s, s.keys.refresh(ctx)
}

// Run rotates the keys until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	s.keys.run(ctx, func(err error) { s.Log.Error("cannot refresh the token signing keys", "err", err) })
	return nil
}

// asked is what a request wants, however it came.
type asked struct {
	user, password string
	credentials    bool
	scopes         []string
}

// ServeHTTP answers GET (Docker's token specification) and POST (its OAuth2
// variant, which containerd tries first).
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.handler.ServeHTTP(w, r)
}

func (s *Service) answer(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/service/token" {
		s.fail(w, r, fault.New(fault.NotFound, "there is no such endpoint"))
		return
	}
	a, err := s.read(w, r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	token, err := s.issue(r.Context(), a, r)
	if err != nil {
		if fault.Is(err, fault.Unauthenticated) {
			w.Header().Set("WWW-Authenticate", `Basic realm="harbor"`)
		}
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store") // RFC 6749 §5.1
	json.NewEncoder(w).Encode(token)
}

func (s *Service) read(w http.ResponseWriter, r *http.Request) (a asked, err error) {
	var service string
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		q := r.URL.Query()
		service, a.scopes = q.Get("service"), q["scope"]
		a.user, a.password, a.credentials = r.BasicAuth()
		if header := r.Header.Get("Authorization"); header != "" && !a.credentials {
			return a, fault.New(fault.Unauthenticated, "the Authorization header is not a valid Basic one")
		}
	case http.MethodPost:
		r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
		if err := r.ParseForm(); err != nil {
			return a, fault.Wrap(fault.Invalid, err, "the form cannot be read")
		}
		service, a.scopes = r.PostForm.Get("service"), r.PostForm["scope"]
		switch grant := r.PostForm.Get("grant_type"); grant {
		case "password":
			a.user, a.password, a.credentials = r.PostForm.Get("username"), r.PostForm.Get("password"), true
		case "":
			return a, fault.New(fault.Invalid, "grant_type is missing").On("grant_type")
		default:
			// Clients fall back to GET with the password (containerd, buildkit).
			return a, fault.New(fault.Invalid, "only the password grant is supported").On("grant_type")
		}
	default:
		w.Header().Set("Allow", "GET, POST")
		return a, fault.New(fault.Unsupported, "the method is not allowed here")
	}
	if service != Audience {
		return a, fault.New(fault.Invalid, "the service must be %s", Audience).On("service")
	}
	return a, nil
}

// Token is the answer (Docker "Token Authentication Specification", "Token
// Response Fields"). Both names of the token are filled in: clients read either.
type Token struct {
	Token       string `json:"token"`
	AccessToken string `json:"access_token"`
	ExpiresIn   int    `json:"expires_in"`
	IssuedAt    string `json:"issued_at"`
}

func (s *Service) issue(ctx context.Context, a asked, r *http.Request) (Token, error) {
	scopes, err := parseScopes(a.scopes)
	if err != nil {
		return Token{}, err
	}
	var who access.Principal
	if a.credentials {
		in, span := s.Tracer.Start(ctx, "authenticate")
		who, err = s.Accounts.Authenticate(in, a.user, a.password, source(r))
		span.End(err)
		if err != nil {
			return Token{}, err
		}
	} else if len(scopes) == 0 {
		// What makes `docker login` without a name fail.
		return Token{}, fault.New(fault.Unauthenticated, "authentication is required")
	}
	granted, err := s.grant(ctx, who, scopes)
	if err != nil {
		return Token{}, err
	}
	settings, err := s.Configuration.Current(ctx)
	if err != nil {
		return Token{}, err
	}
	in, span := s.Tracer.Start(ctx, "sign")
	defer func() { span.End(err) }()
	t, err := s.sign(who, granted, requestID(in), s.Tracer.Parent(ctx), time.Now(), time.Duration(settings.TokenExpiration)*time.Minute)
	if err == nil {
		s.meters.issued[who.Kind].Inc()
		level := slog.LevelInfo
		if r.Header["X-Forwarded-For"] == nil {
			level = slog.LevelDebug // not through the front door: this machine asks whether tokens are given out
		}
		s.Log.Log(ctx, level, "token issued", "user", who.Name, "granted", brief(granted), "source", source(r))
	}
	return t, err
}

// grant cuts what was asked for down to what is allowed. What does not exist
// and what is forbidden look the same: no actions.
func (s *Service) grant(ctx context.Context, who access.Principal, scopes []scope) ([]Access, error) {
	granted := make([]Access, 0, len(scopes))
	for _, sc := range scopes {
		var allowed []string
		var limited []access.TagGrant
		switch sc.Type {
		case "registry":
			if sc.Name == "catalog" {
				allowed = access.CatalogActions(who)
			}
		case "repository":
			if reference.CheckName(sc.Name) != nil {
				break
			}
			name, rest := reference.Project(sc.Name)
			target, err := s.Projects.Target(ctx, who, name)
			if err != nil && !fault.Is(err, fault.NotFound) {
				return nil, err
			}
			if err == nil {
				target.Repository, target.Tag = rest, access.EveryTag
				allowed, limited = access.Actions(who, target), access.TagGrants(who, target)
			}
		}
		granted = append(granted, Access{Type: sc.Type, Name: sc.Name, Actions: intersect(sc.Actions, allowed)})
		for _, l := range limited {
			granted = append(granted, Access{sc.Type, sc.Name, intersect(sc.Actions, l.Actions), l.Tags})
		}
	}
	return granted, nil
}

// intersect keeps what was asked for and is allowed; "*" asks for everything.
func intersect(asked, allowed []string) []string {
	out := []string{}
	for _, a := range allowed {
		if slices.Contains(asked, a) || slices.Contains(asked, "*") {
			out = append(out, a)
		}
	}
	return out
}

// requestID is the front door's id of the request.
func requestID(ctx context.Context) string {
	if r := logger.RequestOf(ctx); r != nil {
		return r.ID
	}
	return ""
}

// brief says what was granted, in the form of a scope, for the log.
func brief(granted []Access) string {
	var b strings.Builder
	for i, g := range granted {
		if i == maxBrief {
			b.WriteString(" …")
			break
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(g.Type + ":" + g.Name + ":" + strings.Join(g.Actions, ","))
	}
	return b.String()
}

// maxBrief is how many scopes the log shows; a mount has two.
const maxBrief = 8

func (s *Service) sign(who access.Principal, granted []Access, request, parent string, now time.Time, life time.Duration) (Token, error) {
	key := s.keys.signer()
	var jti [12]byte
	rand.Read(jti[:])
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, &claims{
		Iss: Issuer, Sub: who.Name, Aud: Audience, Iat: now.Unix(), Nbf: now.Unix(), Exp: now.Add(life).Unix(),
		Jti: strconv.FormatUint(uint64(now.UnixNano()), 36) + encode(jti[:]), Access: granted, Request: request, Trace: parent,
	})
	t.Header["kid"] = key.kid
	signed, err := t.SignedString(key.key)
	return Token{signed, signed, int(life.Seconds()), now.UTC().Format(time.RFC3339)}, err
}

func encode(b []byte) string {
	const digits = "0123456789abcdefghijklmnopqrstuvwxyz"
	out := make([]byte, len(b))
	for i, c := range b {
		out[i] = digits[int(c)%len(digits)]
	}
	return string(out)
}

// source is the client's address as the front door saw it; the service listens
// where only the front door can reach it.
func source(r *http.Request) string {
	if f := r.Header.Get("X-Forwarded-For"); f != "" {
		return strings.TrimSpace(f[strings.LastIndexByte(f, ',')+1:])
	}
	return r.RemoteAddr
}

var kindStatus = map[fault.Kind]int{
	fault.Invalid: http.StatusBadRequest, fault.Unauthenticated: http.StatusUnauthorized, fault.Forbidden: http.StatusForbidden, fault.NotFound: http.StatusNotFound,
	fault.TooMany: http.StatusTooManyRequests, fault.Unavailable: http.StatusServiceUnavailable, fault.Unsupported: http.StatusMethodNotAllowed,
}

func (s *Service) fail(w http.ResponseWriter, r *http.Request, err error) {
	s.meters.refuse(err)
	f := fault.Of(err)
	status, ok := kindStatus[f.Kind]
	if !ok {
		status = http.StatusInternalServerError
	}
	if status >= 500 {
		s.Log.ErrorContext(r.Context(), "a token request failed", "err", err)
	} else if f.Kind != fault.NotFound {
		s.Log.Log(r.Context(), logger.LevelNotice, "token refused", "status", status, "reason", f.Text, "source", source(r))
	}
	code := map[bool]string{true: "UNAUTHORIZED", false: "UNKNOWN"}[status == http.StatusUnauthorized]
	if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
		code = "TOOMANYREQUESTS"
		w.Header().Set("Retry-After", "2")
	}
	message := f.Text
	if f.Hint != "" {
		message += ": " + f.Hint
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": code, "message": message}}})
}
