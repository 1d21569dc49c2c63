package project

import (
	"context"
	"slices"
	"strconv"

	"berth/appliance/fault"
	"berth/services/quota"
)

// metadataKinds are the keys of Harbor's project metadata, and what their
// values, which are strings all of them, must say.
var metadataKinds = map[string]func(string) bool{
	"public":                         isBool,
	"enable_content_trust":           isBool,
	"enable_content_trust_cosign":    isBool,
	"prevent_vul":                    isBool,
	"severity":                       oneOf("none", "unknown", "negligible", "low", "medium", "high", "critical"),
	"auto_scan":                      isBool,
	"auto_sbom_generation":           isBool,
	"reuse_sys_cve_allowlist":        isBool,
	"proxy_speed_kb":                 isNumber,
	"max_upstream_conn":              isNumber,
	"proxy_cache_filter_pattern":     func(s string) bool { return len(s) <= 4096 },
	"proxy_cache_filter_kind":        oneOf("doublestar", "regex", ""),
	"proxy_referrer_api":             isBool,
	"proxy_cache_local_on_not_found": isBool,

	// Berth's own. See docs/admin.md.
	"read_only":        isBool, // nothing can be pushed, changed or deleted
	"immutable_strict": isBool, // an immutable tag cannot be pushed again even as it is, as in Harbor
	"delete_untagged":  isBool, // the collector takes artifacts that have lost their last tag
}

func isBool(s string) bool   { _, err := strconv.ParseBool(s); return err == nil }
func isNumber(s string) bool { _, err := strconv.ParseInt(s, 10, 64); return err == nil }

func oneOf(words ...string) func(string) bool {
	return func(s string) bool { return slices.Contains(words, s) }
}

// checked is Settings by column: two keys of the metadata have one of their own.
type checked struct {
	values           map[string]string
	public, readOnly *bool
}

func checkSettings(set Settings) (c checked, err error) {
	c.values = map[string]string{}
	for key, value := range set.Metadata {
		valid, known := metadataKinds[key]
		if !known {
			return c, fault.New(fault.Invalid, "invalid key: %s", key).On("metadata")
		}
		if !valid(value) {
			return c, fault.New(fault.Invalid, "invalid value: %s", value).On(key)
		}
		b, _ := strconv.ParseBool(value)
		switch {
		case key == "public":
			c.public = &b
		case key == "read_only":
			c.readOnly = &b
		case key == "immutable_strict" || key == "delete_untagged": // read by SQL, in one spelling
			c.values[key] = strconv.FormatBool(b)
		default:
			c.values[key] = value
		}
	}
	if set.StorageLimit != nil {
		if err := quota.CheckLimit(*set.StorageLimit); err != nil {
			return c, err
		}
	}
	if set.Allowlist != nil {
		if err := set.Allowlist.check(); err != nil {
			return c, err
		}
	}
	return c, nil
}

// DeleteMetadata takes a key out of a project's metadata. Public cannot go.
func (s *Store) DeleteMetadata(ctx context.Context, id int64, key string) error {
	if _, known := metadataKinds[key]; !known || key == "public" {
		return fault.New(fault.Invalid, "the metadata %s cannot be deleted", key)
	}
	if key == "read_only" {
		return s.Update(ctx, id, Settings{Metadata: map[string]string{key: "false"}})
	}
	return s.change(ctx, id, "update", `
		UPDATE projects SET metadata = metadata - $2, updated_at = now() WHERE id = $1 RETURNING name`, key)
}
