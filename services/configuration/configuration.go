// Package configuration reads the settings that administrators change while
// Berth runs, under Harbor's names. They are rows; a missing row is the default.
package configuration

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"

	"berth/services/database"
)

// Settings are the settings by Harbor's keys.
type Settings struct {
	AuthMode          string `json:"auth_mode"`                    // db_auth
	PrimaryAuthMode   bool   `json:"primary_auth_mode"`            // show this mode first on the login page
	OIDCName          string `json:"oidc_name"`                    // of the OIDC provider, for the login page
	Banner            string `json:"banner_message"`               // JSON: message, type, closable, fromDate, toDate
	SelfRegistration  bool   `json:"self_registration"`            // strangers may make themselves an account
	ProjectCreation   string `json:"project_creation_restriction"` // everyone or adminonly
	ReadOnly          bool   `json:"read_only"`                    // refuse writes
	Notifications     bool   `json:"notification_enable"`          // webhooks
	StoragePerProject int64  `json:"storage_per_project"`          // bytes that a new project may hold; -1 = no limit
}

// Defaults are the settings of a fresh installation.
func Defaults() Settings {
	return Settings{AuthMode: "db_auth", ProjectCreation: "everyone", Notifications: true, StoragePerProject: -1}
}

// Load reads the settings as they are now.
func Load(ctx context.Context, pool *pgxpool.Pool) (Settings, error) {
	s := Defaults()
	var rows []byte
	err := pool.QueryRow(ctx, `SELECT coalesce(jsonb_object_agg(key, value), '{}') FROM configurations`).Scan(&rows)
	if err != nil {
		return s, database.Fault(err)
	}
	if err := json.Unmarshal(rows, &s); err != nil {
		return s, fmt.Errorf("cannot read the settings in the table configurations: %w", err)
	}
	return s, nil
}
