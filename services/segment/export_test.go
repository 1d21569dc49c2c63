package segment

import (
	"context"
	"errors"
	"time"
)

// Write is what Run does ten times a second.
func (s *Store) Write() error { return s.write() }

// Retain removes what is too old at a time, or too much.
func (s *Store) Retain(now time.Time) { s.retain(now) }

// Seal does what Run does once a second.
func (s *Store) Seal(ctx context.Context) error { return errors.Join(s.sync(), s.seal(ctx)) }
