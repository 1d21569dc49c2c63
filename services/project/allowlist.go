package project

import (
	"context"
	"errors"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"

	"berth/appliance/fault"
	"berth/services/database"
	"berth/services/event"
)

// Allowlist is vulnerabilities that do not count, in a project or (SystemAllowlist)
// in all projects that reuse the system's.
type Allowlist struct {
	Items   []AllowedCVE `json:"items"`
	Expires int64        `json:"expires_at,omitempty"` // Unix time; 0 = never
}

// AllowedCVE is an entry of an Allowlist.
type AllowedCVE struct {
	ID string `json:"cve_id"`
}

// maxAllowed is how many entries an allowlist may have.
const maxAllowed = 10_000

var cveForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$`)

func (l Allowlist) check() error {
	if len(l.Items) > maxAllowed {
		return fault.New(fault.Invalid, "an allowlist has at most %d entries", maxAllowed).On("cve_allowlist")
	}
	if l.Expires < 0 {
		return fault.New(fault.Invalid, "expires_at is a Unix time in seconds").On("cve_allowlist")
	}
	seen := map[string]bool{}
	for _, item := range l.Items {
		if !cveForm.MatchString(item.ID) {
			return fault.New(fault.Invalid, "%q is no CVE id", item.ID).On("cve_allowlist")
		}
		if seen[item.ID] {
			return fault.New(fault.Invalid, "%s is listed twice", item.ID).On("cve_allowlist")
		}
		seen[item.ID] = true
	}
	return nil
}

// SystemAllowlist gives the system's allowlist, and when it was made and changed:
// zero times as long as nobody has set one.
func (s *Store) SystemAllowlist(ctx context.Context) (l Allowlist, created, updated time.Time, err error) {
	err = s.pool.QueryRow(ctx, `SELECT allowlist, created_at, updated_at FROM system_allowlist`).Scan(&l, &created, &updated)
	if errors.Is(err, pgx.ErrNoRows) {
		err = nil
	}
	if l.Items == nil {
		l.Items = []AllowedCVE{}
	}
	return l, created, updated, database.Fault(err)
}

// SetSystemAllowlist replaces the system's allowlist.
func (s *Store) SetSystemAllowlist(ctx context.Context, l Allowlist) error {
	if err := l.check(); err != nil {
		return err
	}
	return database.Fault(database.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO system_allowlist (allowlist) VALUES ($1)
			ON CONFLICT (one) DO UPDATE SET allowlist = EXCLUDED.allowlist, updated_at = now()`, l); err != nil {
			return err
		}
		return s.outbox.Add(ctx, tx, event.Event{Operation: "update", ResourceType: "configuration", Resource: "CVE allowlist", Success: true,
			Description: "update the system's CVE allowlist"})
	}))
}
