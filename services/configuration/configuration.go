// Package configuration has the settings that administrators change while Berth
// runs, under Harbor's names (GET and PUT /configurations). They are rows; a
// missing row is the default.
//
// Every service asks for them on its hottest paths, so a Store keeps them in
// memory and drops them when a trigger tells that a row has changed: a read sees
// every change that was committed before it by more than a notification's way,
// which is milliseconds. Secrets are sealed in the table and are never given out.
package configuration

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/singleflight"

	"berth/appliance/secret"
	"berth/services/database"
	"berth/services/event"
	"berth/services/metric"
)

// Settings are the settings by Harbor's keys. A field of type secret.Text is a
// secret; the others may be read by administrators.
type Settings struct {
	AuthMode         string `json:"auth_mode"`         // db_auth, ldap_auth, oidc_auth, http_auth or uaa_auth
	PrimaryAuthMode  bool   `json:"primary_auth_mode"` // show this mode first on the login page
	SelfRegistration bool   `json:"self_registration"` // strangers may make themselves an account (db_auth)
	TokenExpiration  int64  `json:"token_expiration"`  // minutes that a registry token is valid
	SessionTimeout   int64  `json:"session_timeout"`   // minutes that a browser's session lives without use

	ProjectCreation   string `json:"project_creation_restriction"` // everyone or adminonly
	ReadOnly          bool   `json:"read_only"`                    // refuse writes
	QuotaEnabled      bool   `json:"quota_per_project_enable"`     // hold projects to their limits
	StoragePerProject int64  `json:"storage_per_project"`          // bytes that a new project may hold; -1 = no limit
	RobotDuration     int64  `json:"robot_token_duration"`         // days that a new robot lives unless it says otherwise; -1 = for ever
	RobotPrefix       string `json:"robot_name_prefix"`            // what robots' login names begin with

	Notifications           bool   `json:"notification_enable"`            // webhooks
	Banner                  string `json:"banner_message"`                 // JSON: message, type, closable, fromDate, toDate
	AuditEndpoint           string `json:"audit_log_forward_endpoint"`     // host:port of a syslog collector
	SkipAuditDatabase       bool   `json:"skip_audit_log_database"`        // forward the audit trail only
	DisabledAuditEvents     string `json:"disabled_audit_log_event_types"` // not recorded; joined by commas
	ScannerSkipsPullTime    bool   `json:"scanner_skip_update_pulltime"`   // a scanner's pull is none
	LDAPURL                 string `json:"ldap_url"`                       // ldap://host[:port] or ldaps://
	LDAPBaseDN              string `json:"ldap_base_dn"`
	LDAPUID                 string `json:"ldap_uid"` // the attribute that holds the login name
	LDAPSearchDN            string `json:"ldap_search_dn"`
	LDAPFilter              string `json:"ldap_filter"`
	LDAPScope               int64  `json:"ldap_scope"`   // 0 base, 1 one level, 2 subtree
	LDAPTimeout             int64  `json:"ldap_timeout"` // seconds
	LDAPVerifyCert          bool   `json:"ldap_verify_cert"`
	LDAPGroupBaseDN         string `json:"ldap_group_base_dn"`
	LDAPGroupFilter         string `json:"ldap_group_search_filter"`
	LDAPGroupAttribute      string `json:"ldap_group_attribute_name"`
	LDAPGroupScope          int64  `json:"ldap_group_search_scope"`
	LDAPGroupAdminDN        string `json:"ldap_group_admin_dn"` // its members are system administrators
	LDAPGroupMembership     string `json:"ldap_group_membership_attribute"`
	LDAPStartTLS            bool   `json:"ldap_start_tls"`             // encrypt ldap:// before anything is said; Harbor has no such key
	LDAPCA                  string `json:"ldap_ca_certificate"`        // PEM of authorities to trust; Harbor has no such key
	LDAPGroupNested         string `json:"ldap_group_nested"`          // "", in_chain or walk; Harbor has no such key
	LDAPGroupAttachParallel bool   `json:"ldap_group_attach_parallel"` // stored for Harbor's clients; groups are always asked for at once
	OIDCName                string `json:"oidc_name"`                  // of the provider, for the login page
	OIDCEndpoint            string `json:"oidc_endpoint"`
	OIDCClientID            string `json:"oidc_client_id"`
	OIDCScope               string `json:"oidc_scope"` // joined by commas
	OIDCGroupsClaim         string `json:"oidc_groups_claim"`
	OIDCAdminGroup          string `json:"oidc_admin_group"`
	OIDCGroupFilter         string `json:"oidc_group_filter"` // regular expression (RE2)
	OIDCUserClaim           string `json:"oidc_user_claim"`
	OIDCVerifyCert          bool   `json:"oidc_verify_cert"`
	OIDCCA                  string `json:"oidc_ca_certificate"` // PEM of authorities to trust; Harbor has no such key
	OIDCAutoOnboard         bool   `json:"oidc_auto_onboard"`
	OIDCLogout              bool   `json:"oidc_logout"`
	OIDCExtraParameters     string `json:"oidc_extra_redirect_parms"` // a JSON object of strings
	AuthproxyEndpoint       string `json:"http_authproxy_endpoint"`
	AuthproxyReviewEndpoint string `json:"http_authproxy_tokenreview_endpoint"`
	AuthproxyAdminGroups    string `json:"http_authproxy_admin_groups"`
	AuthproxyAdminUsernames string `json:"http_authproxy_admin_usernames"`
	AuthproxyCertificate    string `json:"http_authproxy_server_certificate"`
	AuthproxyVerifyCert     bool   `json:"http_authproxy_verify_cert"`
	AuthproxySkipSearch     bool   `json:"http_authproxy_skip_search"`
	UAAClientID             string `json:"uaa_client_id"`
	UAAEndpoint             string `json:"uaa_endpoint"`
	UAAVerifyCert           bool   `json:"uaa_verify_cert"`

	LDAPSearchPassword secret.Text `json:"ldap_search_password"`
	OIDCClientSecret   secret.Text `json:"oidc_client_secret"`
	UAAClientSecret    secret.Text `json:"uaa_client_secret"`
}

// Defaults are the settings of a fresh installation.
func Defaults() Settings {
	return Settings{
		AuthMode: "db_auth", TokenExpiration: 30, SessionTimeout: 60, ProjectCreation: "everyone", QuotaEnabled: true, StoragePerProject: -1,
		RobotDuration: 30, RobotPrefix: "robot$", Notifications: true,
		LDAPUID: "cn", LDAPScope: 2, LDAPTimeout: 5, LDAPVerifyCert: true, LDAPGroupScope: 2, LDAPGroupMembership: "memberof",
		OIDCVerifyCert: true, OIDCExtraParameters: "{}", AuthproxyVerifyCert: true,
	}
}

// Store reads and changes the settings of one database.
type Store struct {
	pool   *pgxpool.Pool
	key    secret.Key
	outbox *event.Outbox
	probes map[string]Probe

	changes atomic.Uint64 // counts the notifications: what was loaded before one is stale after it
	hearing atomic.Bool
	last    atomic.Pointer[snapshot]
	loads   singleflight.Group

	// Hits tells how often the settings were in memory.
	Hits metric.Hits
}

type snapshot struct {
	Settings
	changes uint64
	at      time.Time
}

// deafLife is how long settings are trusted while no notification can come.
const deafLife = time.Second

// New makes a store. While nobody listens to its Channel it works, and reads the
// table every second.
func New(pool *pgxpool.Pool, key secret.Key, outbox *event.Outbox) *Store {
	return &Store{pool: pool, key: key, outbox: outbox, probes: map[string]Probe{}}
}

// Probe tries what a setting's new value names; an error says why it will not do.
type Probe func(ctx context.Context, value string) error

// Try makes Update try a key's new value, unless it is empty. It is for whoever
// puts a service together, before anything changes settings.
func (s *Store) Try(name string, probe Probe) { s.probes[name] = probe }

// Channel tells of changes.
func (s *Store) Channel() database.Channel {
	return database.Channel{Name: "berth_configuration",
		State: func(hearing bool) {
			s.changes.Add(1)
			s.hearing.Store(hearing)
		},
		Heard: func(string) { s.changes.Add(1) },
	}
}

// Current gives the settings as they are now, mostly from memory. Errors:
// Unavailable.
func (s *Store) Current(ctx context.Context) (Settings, error) {
	changes := s.changes.Load()
	have := s.last.Load()
	if s.Hits.Note(have != nil && have.changes == changes && (s.hearing.Load() || time.Since(have.at) < deafLife)) {
		return have.Settings, nil
	}
	loaded, err, _ := s.loads.Do(fmt.Sprint(changes), func() (any, error) {
		now := time.Now()
		settings, err := s.load(context.WithoutCancel(ctx), s.pool)
		if err == nil {
			s.last.Store(&snapshot{settings, changes, now})
		}
		return settings, err
	})
	return loaded.(Settings), err
}

type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// load reads all rows. A value that does not fit its key, written by a person
// with psql, is an error: no default stands in for what was meant.
func (s *Store) load(ctx context.Context, db querier) (Settings, error) {
	settings := Defaults()
	var rows map[string]json.RawMessage
	if err := db.QueryRow(ctx, `SELECT coalesce(jsonb_object_agg(key, value), '{}') FROM configurations`).Scan(&rows); err != nil {
		return settings, database.Fault(err)
	}
	into := reflect.ValueOf(&settings).Elem()
	for _, k := range keys {
		raw, ok := rows[k.name]
		if !ok {
			continue
		}
		if k.secret {
			text, err := s.unseal(k.name, raw)
			if err != nil {
				return settings, err
			}
			into.Field(k.field).SetString(text)
			continue
		}
		if err := json.Unmarshal(raw, into.Field(k.field).Addr().Interface()); err != nil {
			return settings, fmt.Errorf("cannot read the setting %s in the table configurations: %w", k.name, err)
		}
	}
	return settings, nil
}

func (s *Store) seal(name, text string) []byte {
	return s.key.Seal("configuration "+name, []byte(text))
}

func (s *Store) unseal(name string, raw json.RawMessage) (string, error) {
	var sealed []byte
	if err := json.Unmarshal(raw, &sealed); err != nil {
		return "", fmt.Errorf("cannot read the secret %s in the table configurations: %w", name, err)
	}
	if len(sealed) == 0 {
		return "", nil
	}
	plain, err := s.key.Open("configuration "+name, sealed)
	return string(plain), err
}
