package token

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"berth/appliance/secret"
	"berth/services/database"
)

// Rotation says how long a key lives. A new key is published before it signs,
// so that every verifier has read it by then, and verifies on after it has
// signed its last token.
type Rotation struct {
	Signs   time.Duration // how long one key signs
	Publish time.Duration // how long before it signs it can be read
	Verify  time.Duration // how long after its last signature it is still accepted; longer than any token
}

// DefaultRotation changes keys monthly.
var DefaultRotation = Rotation{Signs: 30 * 24 * time.Hour, Publish: time.Hour, Verify: 24 * time.Hour}

// rotationLock makes one node at a time look after the keys.
const rotationLock = 0x62657274686b6579 // "berthkey"

const sealPurpose = "token signing key"

// signer is a key that signs. EdDSA signs in 25 µs where RS256 takes 1 ms
// (measured), and a token is as short as with ES256.
type signer struct {
	kid string
	key ed25519.PrivateKey
}

// keyring is the signing half's view of the keys.
type keyring struct {
	pool     *pgxpool.Pool
	seal     secret.Key
	rotation Rotation

	mu      sync.RWMutex
	current signer
}

// refresh makes the keys that are due, forgets those whose last token is long
// over, and picks the one that signs now.
func (k *keyring) refresh(ctx context.Context) error {
	var next signer
	err := pgx.BeginFunc(ctx, k.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(rotationLock)); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM signing_keys WHERE expires_at < now()`); err != nil {
			return err
		}
		if err := k.ensure(ctx, tx); err != nil {
			return err
		}
		var sealed []byte
		err := tx.QueryRow(ctx, `SELECT kid, sealed_key FROM signing_keys WHERE signs_from <= now() AND retires_at > now()
			ORDER BY signs_from DESC LIMIT 1`).Scan(&next.kid, &sealed)
		if err != nil {
			return err
		}
		seed, err := k.seal.Open(sealPurpose, sealed)
		if err != nil {
			return err
		}
		next.key = ed25519.NewKeyFromSeed(seed)
		return nil
	})
	if err != nil {
		return fmt.Errorf("cannot read the token signing keys: %w", database.Fault(err))
	}
	k.mu.Lock()
	k.current = next
	k.mu.Unlock()
	return nil
}

// ensure makes the first key, which signs at once, and the successor of one that
// retires soon. A key that this node's key file cannot open counts as lost: it
// is replaced, and verifies on.
func (k *keyring) ensure(ctx context.Context, tx pgx.Tx) error {
	var retires time.Time
	var sealed []byte
	err := tx.QueryRow(ctx, `SELECT retires_at, sealed_key FROM signing_keys ORDER BY retires_at DESC LIMIT 1`).Scan(&retires, &sealed)
	now := time.Now()
	if err == nil {
		_, unreadable := k.seal.Open(sealPurpose, sealed)
		if unreadable == nil {
			if retires.Sub(now) > k.rotation.Publish {
				return nil
			}
			return k.make(ctx, tx, maxTime(retires.Add(-k.rotation.Publish/2), now), now)
		}
		if _, err := tx.Exec(ctx, `UPDATE signing_keys SET retires_at = now() WHERE retires_at > now()`); err != nil {
			return err
		}
	} else if !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	return k.make(ctx, tx, now, now)
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (k *keyring) make(ctx context.Context, tx pgx.Tx, from, now time.Time) error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	retires := from.Add(k.rotation.Signs)
	// signs_from is compared with the database's clock; a second of slack keeps
	// a first key usable where ours is ahead.
	_, err = tx.Exec(ctx, `INSERT INTO signing_keys (kid, algorithm, public_key, sealed_key, signs_from, retires_at, expires_at)
		VALUES ($1, 'EdDSA', $2, $3, LEAST($4, CASE WHEN $7 THEN now() ELSE $4 END), $5, $6)`,
		keyID(public), []byte(public), k.seal.Seal(sealPurpose, private.Seed()), from, retires, retires.Add(k.rotation.Verify), !from.After(now))
	return err
}

// keyID names a public key by its hash.
func keyID(public ed25519.PublicKey) string {
	sum := sha256.Sum256(public)
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

func (k *keyring) signer() signer {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.current
}

// run keeps the keys fresh until ctx ends.
func (k *keyring) run(ctx context.Context, failed func(error)) {
	every := min(k.rotation.Publish/4, time.Minute)
	tick := time.NewTicker(max(every, 100*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := k.refresh(ctx); err != nil && ctx.Err() == nil {
				failed(err)
			}
		}
	}
}
