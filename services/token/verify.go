package token

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/maypok86/otter/v2"
	"golang.org/x/sync/singleflight"

	"berth/appliance/fault"
	"berth/services/database"
	"berth/services/metric"
)

// Verified is a token that has been checked.
type Verified struct {
	User    string // "" = anonymous
	Access  []Access
	Request string // id of the request that got it
	expires time.Time
	begins  time.Time
}

// Verifier checks tokens with the public keys of the database. A token that has
// been verified is remembered until it expires, which saves 50 µs a request.
type Verifier struct {
	pool   *pgxpool.Pool
	parser *jwt.Parser
	seen   *otter.Cache[string, *Verified]
	now    func() time.Time

	mu      sync.RWMutex
	keys    map[string]ed25519.PublicKey
	read    time.Time // when keys were read
	reading singleflight.Group

	// Hits tells how often a token had been verified before.
	Hits metric.Hits
}

// Limits of the verifier: how many tokens it remembers, how long a token may
// be, how often strangers' key ids may make it read the keys, and how long it
// trusts what it has read (a key removed from the database stops verifying
// after that).
const (
	seenTokens = 20_000
	maxToken   = 16 << 10
	rereadKeys = 5 * time.Second
	trustKeys  = 5 * time.Minute
)

// NewVerifier makes a Verifier. now is the clock; nil means time.Now.
func NewVerifier(pool *pgxpool.Pool, now func() time.Time) (*Verifier, error) {
	if now == nil {
		now = time.Now
	}
	seen, err := otter.New(&otter.Options[string, *Verified]{MaximumSize: seenTokens, ExpiryCalculator: otter.ExpiryWriting[string, *Verified](time.Hour)})
	if err != nil {
		return nil, err
	}
	return &Verifier{
		pool: pool, seen: seen, now: now, keys: map[string]ed25519.PublicKey{},
		parser: jwt.NewParser(jwt.WithValidMethods([]string{"EdDSA"}), jwt.WithAudience(Audience), jwt.WithIssuer(Issuer),
			jwt.WithLeeway(leeway), jwt.WithIssuedAt(), jwt.WithExpirationRequired(), jwt.WithTimeFunc(now)),
	}, nil
}

// Verify checks a token. Errors: Unauthenticated, Unavailable (the keys cannot
// be read).
func (v *Verifier) Verify(ctx context.Context, raw string) (*Verified, error) {
	now := v.now()
	if t, ok := v.seen.GetIfPresent(raw); v.Hits.Note(ok) {
		// The clock is asked again: it may have been set since.
		if now.Before(t.expires.Add(leeway)) && !now.Before(t.begins.Add(-leeway)) {
			return t, nil
		}
		v.seen.Invalidate(raw)
	}
	if len(raw) > maxToken {
		return nil, fault.New(fault.Unauthenticated, "the token is too long")
	}
	var c claims
	_, err := v.parser.ParseWithClaims(raw, &c, func(t *jwt.Token) (any, error) {
		kid, _ := t.Header["kid"].(string)
		return v.key(ctx, kid)
	})
	if err != nil {
		if f, ok := errors.AsType[*fault.Error](err); ok {
			return nil, f
		}
		return nil, refused(err)
	}
	t := &Verified{User: c.Sub, Access: c.Access, Request: c.Request, expires: time.Unix(c.Exp, 0), begins: time.Unix(c.Nbf, 0)}
	v.seen.Set(raw, t)
	return t, nil
}

func refused(err error) error {
	text := "the token is not valid"
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		text = "the token has expired"
	case errors.Is(err, jwt.ErrTokenNotValidYet), errors.Is(err, jwt.ErrTokenUsedBeforeIssued):
		text = "the token is not valid yet: the clocks of the token service and the registry differ"
	}
	return fault.Wrap(fault.Unauthenticated, err, "%s", text).WithHint("log in again")
}

// key finds a public key, reading the database if it is not known or what is
// known is old.
func (v *Verifier) key(ctx context.Context, kid string) (ed25519.PublicKey, error) {
	v.mu.RLock()
	key, known := v.keys[kid]
	age := v.now().Sub(v.read)
	v.mu.RUnlock()
	fresh := age >= 0 && age < trustKeys
	if known && fresh {
		return key, nil
	}
	if fresh && age < rereadKeys {
		return nil, fault.New(fault.Unauthenticated, "the token is signed with an unknown key").WithHint("log in again")
	}
	if _, err, _ := v.reading.Do("", func() (any, error) { return nil, v.readKeys(context.WithoutCancel(ctx)) }); err != nil {
		if known {
			return key, nil // the database is away; what was right a while ago still is
		}
		return nil, fault.Wrap(fault.Unavailable, err, "the token keys cannot be read")
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	if key, known = v.keys[kid]; !known {
		return nil, fault.New(fault.Unauthenticated, "the token is signed with an unknown key").WithHint("log in again")
	}
	return key, nil
}

func (v *Verifier) readKeys(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	rows, err := v.pool.Query(ctx, `SELECT kid, public_key FROM signing_keys WHERE algorithm = 'EdDSA' AND expires_at > now()`)
	if err != nil {
		return database.Fault(err)
	}
	keys := map[string]ed25519.PublicKey{}
	var kid string
	var public []byte
	_, err = pgx.ForEachRow(rows, []any{&kid, &public}, func() error {
		if len(public) != ed25519.PublicKeySize {
			return fmt.Errorf("cannot use the public key %s: it has %d bytes", kid, len(public))
		}
		keys[kid] = ed25519.PublicKey(append([]byte(nil), public...))
		return nil
	})
	if err != nil {
		return database.Fault(err)
	}
	v.mu.Lock()
	v.keys, v.read = keys, v.now()
	v.mu.Unlock()
	return nil
}
