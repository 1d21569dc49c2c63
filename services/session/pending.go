package session

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"berth/appliance/secret"
	"berth/services/database"
)

// pendingLife is how long somebody who has logged in at a provider may take to
// choose a user name.
const pendingLife = 10 * time.Minute

// Keep puts aside who somebody is until the login is complete, sealed, and gives
// the id to find it by. It is too much for a cookie: people have many groups.
func (s *Store) Keep(ctx context.Context, login any) (secret.Text, error) {
	plain, err := json.Marshal(login)
	if err != nil {
		return "", err
	}
	raw := make([]byte, idBytes)
	rand.Read(raw)
	id := base64.RawURLEncoding.EncodeToString(raw)
	hash, _ := s.hash(id)
	_, err = s.pool.Exec(ctx, `INSERT INTO pending_logins (id_hash, sealed, expires_at) VALUES ($1, $2, now() + $3)`,
		hash, s.key.Seal("pending login", plain), pendingLife)
	return secret.Text(id), database.Fault(err)
}

// Pending reads what Keep put aside. ok is false if there is nothing, or nothing
// any more.
func (s *Store) Pending(ctx context.Context, id string, login any) (ok bool, err error) {
	hash, ok := s.hash(id)
	if !ok {
		return false, nil
	}
	var sealed []byte
	err = s.pool.QueryRow(ctx, `SELECT sealed FROM pending_logins WHERE id_hash = $1 AND expires_at > now()`, hash).Scan(&sealed)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, database.Fault(err)
	}
	plain, err := s.key.Open("pending login", sealed)
	if err != nil {
		return false, err
	}
	return true, json.Unmarshal(plain, login)
}

// Complete removes what Keep put aside.
func (s *Store) Complete(ctx context.Context, id string) error {
	hash, ok := s.hash(id)
	if !ok {
		return nil
	}
	_, err := s.pool.Exec(ctx, `DELETE FROM pending_logins WHERE id_hash = $1`, hash)
	return database.Fault(err)
}
