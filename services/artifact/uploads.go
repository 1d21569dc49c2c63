package artifact

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// SaveUpload keeps how far an upload's running hash has come, so that another
// node can go on with it. It is an optimisation: without it the bytes are hashed
// again. The table is not logged, so a crash of the database forgets them all.
func (s *Store) SaveUpload(ctx context.Context, id uuid.UUID, offset int64, hash []byte, life time.Duration) error {
	_, err := s.Pool.Exec(ctx, `INSERT INTO uploads (id, hash_offset, hash_state, expires_at) VALUES ($1, $2, $3, now() + $4)
		ON CONFLICT (id) DO UPDATE SET hash_offset = EXCLUDED.hash_offset, hash_state = EXCLUDED.hash_state`, id, offset, hash, life)
	return wrap(err, "keep the state of an upload")
}

// Upload gives what SaveUpload kept; 0 and nil if there is nothing.
func (s *Store) Upload(ctx context.Context, id uuid.UUID) (offset int64, hash []byte, err error) {
	err = s.Pool.QueryRow(ctx, `SELECT hash_offset, hash_state FROM uploads WHERE id = $1`, id).Scan(&offset, &hash)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil, nil
	}
	return offset, hash, wrap(err, "read the state of an upload")
}

// ForgetUploads removes the state of uploads that have ended or expired.
func (s *Store) ForgetUploads(ctx context.Context, ended ...uuid.UUID) error {
	_, err := s.Pool.Exec(ctx, `DELETE FROM uploads WHERE id = ANY($1) OR expires_at < now()`, ended)
	return wrap(err, "forget uploads")
}
