package configuration

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"berth/appliance/fault"
	"berth/appliance/secret"
	"berth/services/event"
)

// key is one setting: a field of Settings.
type key struct {
	name   string
	field  int
	kind   reflect.Kind
	secret bool
}

// keys are all settings, by name.
var keys = compile()

func compile() map[string]key {
	m := map[string]key{}
	t := reflect.TypeFor[Settings]()
	for i := range t.NumField() {
		f := t.Field(i)
		name := f.Tag.Get("json")
		m[name] = key{name, i, f.Type.Kind(), f.Type == reflect.TypeFor[secret.Text]()}
	}
	return m
}

// Item is a setting as GET /configurations shows it.
type Item struct {
	Value    any  `json:"value"`
	Editable bool `json:"editable"`
}

// Items gives every setting but the secrets. mode says whether auth_mode can
// still be changed.
func (s Settings) Items(mode bool) map[string]Item {
	items := map[string]Item{}
	v := reflect.ValueOf(s)
	for name, k := range keys {
		if !k.secret {
			items[name] = Item{v.Field(k.field).Interface(), name != "auth_mode" || mode}
		}
	}
	return items
}

// Change is what PUT /configurations sends: some settings, by key. Keys that
// are not known are ignored, as Harbor does, for clients send back what they got.
type Change map[string]any

// UnmarshalJSON reads a change. It fails if a value is not of its key's type.
func (c *Change) UnmarshalJSON(b []byte) error {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	*c = Change{}
	for name, value := range raw {
		k, ok := keys[name]
		if !ok || string(value) == "null" {
			continue
		}
		v, err := k.parse(value)
		if err != nil {
			return err
		}
		(*c)[name] = v
	}
	return nil
}

// parse reads a value of the key's type.
func (k key) parse(raw json.RawMessage) (any, error) {
	var err error
	switch k.kind {
	case reflect.Bool:
		var b bool
		if err = json.Unmarshal(raw, &b); err == nil {
			return b, nil
		}
		return nil, fmt.Errorf("%s must be true or false", k.name)
	case reflect.Int64:
		var n int64
		if err = json.Unmarshal(raw, &n); err == nil {
			return n, nil
		}
		return nil, fmt.Errorf("%s must be a whole number", k.name)
	}
	var text string
	if k.name == "oidc_extra_redirect_parms" && len(raw) > 0 && raw[0] == '{' {
		return string(raw), nil // some clients send the object itself
	}
	if err = json.Unmarshal(raw, &text); err != nil {
		return nil, fmt.Errorf("%s must be a string", k.name)
	}
	return text, nil
}

// Names are the keys of all settings, sorted.
func Names() []string { return slices.Sorted(maps.Keys(keys)) }

// Secret reports whether a key's value is never given out.
func Secret(name string) bool { return keys[name].secret }

// Set adds a key to a change, its value written as text: true, 30, a string.
// Errors: Invalid, for a key that there is not, or a value that is not of its type.
func (c Change) Set(name, text string) error {
	k, ok := keys[name]
	if !ok {
		return fault.New(fault.Invalid, "there is no setting %q", name).WithHint("berth configuration list shows all")
	}
	raw := json.RawMessage(text)
	if k.kind == reflect.String {
		var err error
		if raw, err = json.Marshal(text); err != nil {
			return err
		}
	}
	value, err := k.parse(raw)
	if err != nil {
		return fault.New(fault.Invalid, "%v", err)
	}
	c[name] = value
	return nil
}

// maxText is how long a setting may be; certificates are the longest.
const maxText = 64 << 10

// check refuses values that cannot work, each for itself.
func (s Settings) check(changed []string) error {
	v := reflect.ValueOf(s)
	for _, name := range changed {
		k := keys[name]
		field := v.Field(k.field)
		if k.kind == reflect.String && len(field.String()) > maxText {
			return invalid(name, "it is longer than %d bytes", maxText)
		}
		if rule := rules[name]; rule != nil {
			if err := rule(field.Interface()); err != nil {
				return invalid(name, "%v", err)
			}
		}
	}
	if s.SkipAuditDatabase && s.AuditEndpoint == "" {
		return fault.New(fault.Invalid, "the audit trail would be written nowhere").On("skip_audit_log_database").
			WithHint("set audit_log_forward_endpoint first")
	}
	return nil
}

func invalid(name, format string, args ...any) error {
	return fault.New(fault.Invalid, format, args...).On(name)
}

// rules say which values a key takes, for those keys that do not take all.
var rules = map[string]func(any) error{
	"auth_mode":                           oneOf("db_auth", "ldap_auth", "oidc_auth", "http_auth", "uaa_auth"),
	"project_creation_restriction":        oneOf("everyone", "adminonly"),
	"token_expiration":                    between(1, 24*60),
	"session_timeout":                     between(1, 31*24*60),
	"robot_token_duration":                robotDays,
	"robot_name_prefix":                   robotPrefix,
	"storage_per_project":                 storageLimit,
	"banner_message":                      banner,
	"audit_log_forward_endpoint":          hostPort,
	"disabled_audit_log_event_types":      eventTypes,
	"ldap_url":                            address(true, "ldap", "ldaps"),
	"ldap_base_dn":                        notEmpty,
	"ldap_uid":                            attribute(true),
	"ldap_scope":                          between(0, 2),
	"ldap_timeout":                        between(1, 300),
	"ldap_group_attribute_name":           attribute(false),
	"ldap_group_search_scope":             between(0, 2),
	"ldap_group_membership_attribute":     attribute(false),
	"ldap_group_nested":                   oneOf("", "in_chain", "walk"),
	"ldap_ca_certificate":                 certificates,
	"oidc_ca_certificate":                 certificates,
	"oidc_endpoint":                       address(false, "https", "http"),
	"oidc_scope":                          oidcScope,
	"oidc_group_filter":                   expression,
	"oidc_extra_redirect_parms":           stringMap,
	"http_authproxy_endpoint":             address(false, "https", "http"),
	"http_authproxy_tokenreview_endpoint": address(false, "https", "http"),
	"uaa_endpoint":                        address(false, "https", "http"),
}

func oneOf(values ...string) func(any) error {
	return func(v any) error {
		if !slices.Contains(values, v.(string)) {
			return fmt.Errorf("it must be %s, not %q", strings.Join(values, ", "), v)
		}
		return nil
	}
}

func between(low, high int64) func(any) error {
	return func(v any) error {
		if n := v.(int64); n < low || n > high {
			return fmt.Errorf("it must be between %d and %d, not %d", low, high, n)
		}
		return nil
	}
}

func notEmpty(v any) error {
	if v.(string) == "" {
		return fmt.Errorf("it cannot be empty")
	}
	return nil
}

func robotDays(v any) error {
	if n := v.(int64); n == 0 || n < -1 || n > 36500 {
		return fmt.Errorf("it is a number of days, or -1 for ever, not %d", n)
	}
	return nil
}

// robotPrefix must keep robots' names apart from people's in a basic login.
func robotPrefix(v any) error {
	s := v.(string)
	if s == "" || len(s) > 64 || strings.ContainsFunc(s, func(r rune) bool { return r == ':' || unicode.IsSpace(r) || !unicode.IsPrint(r) }) {
		return fmt.Errorf("it must be 1 to 64 characters without spaces and colons")
	}
	return nil
}

// maxStorage is 1024 TiB, Harbor's limit.
const maxStorage = 1024 << 40

func storageLimit(v any) error {
	if n := v.(int64); n == 0 || n < -1 || n > maxStorage {
		return fmt.Errorf("it is a number of bytes up to %d, or -1 for no limit, not %d", int64(maxStorage), n)
	}
	return nil
}

func banner(v any) error {
	if v == "" {
		return nil
	}
	var b struct {
		Message  string `json:"message"`
		Type     string `json:"type"`
		Closable bool   `json:"closable"`
		From     any    `json:"fromDate"`
		To       any    `json:"toDate"`
	}
	if err := json.Unmarshal([]byte(v.(string)), &b); err != nil {
		return fmt.Errorf("it must be empty or a JSON object with message, type, closable, fromDate and toDate: %v", err)
	}
	return nil
}

func hostPort(v any) error {
	s := v.(string)
	if s == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(strings.TrimPrefix(strings.TrimPrefix(s, "udp://"), "tcp://"))
	if err != nil || host == "" {
		return fmt.Errorf("it must be host:port (by TCP) or udp://host:port, not %q", s)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("%q is not a port", port)
	}
	return nil
}

func eventTypes(v any) error {
	for name := range strings.SplitSeq(v.(string), ",") {
		if name = strings.TrimSpace(name); name != "" && !slices.Contains(event.Types(), name) {
			return fmt.Errorf("%q is not a type of event: they are %s", name, strings.Join(event.Types(), ", "))
		}
	}
	return nil
}

func address(required bool, schemes ...string) func(any) error {
	return func(v any) error {
		s := v.(string)
		if s == "" {
			if required {
				return notEmpty(v)
			}
			return nil
		}
		if !strings.Contains(s, "://") {
			s = schemes[0] + "://" + s
		}
		u, err := url.Parse(s)
		if err != nil || u.Host == "" || !slices.Contains(schemes, u.Scheme) {
			return fmt.Errorf("it must be %s://HOST[:PORT], not %q", strings.Join(schemes, ":// or "), v)
		}
		if u.User != nil {
			return fmt.Errorf("a name and a password do not belong into an address")
		}
		return nil
	}
}

var attributeName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9;.-]{0,127}$`)

// attribute is an LDAP attribute description (RFC 4512 §2.5).
func attribute(required bool) func(any) error {
	return func(v any) error {
		if s := v.(string); s == "" && required || s != "" && !attributeName.MatchString(s) {
			return fmt.Errorf("it must be the name of an attribute, not %q", s)
		}
		return nil
	}
}

func oidcScope(v any) error {
	s := v.(string)
	scopes := strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
	if s != "" && !slices.Contains(scopes, "openid") {
		return fmt.Errorf("it must have openid among others")
	}
	return nil
}

func certificates(v any) error {
	if s := v.(string); s != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(s)) {
		return fmt.Errorf("it must hold certificates in PEM form")
	}
	return nil
}

func expression(v any) error {
	_, err := regexp.Compile(v.(string))
	return err
}

func stringMap(v any) error {
	var m map[string]string
	if s := v.(string); s != "" {
		if err := json.Unmarshal([]byte(s), &m); err != nil {
			return fmt.Errorf("it must be a JSON object of strings")
		}
	}
	return nil
}
