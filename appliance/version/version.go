// Package version says which Berth this is.
package version

import "runtime/debug"

// Version is the release, set by the linker (make build).
var Version = "0.1.0-dev"

// Revision is the commit, set by the linker like Version; empty if it was not.
var Revision = ""

// Commit is the revision that the binary was built from, or "unknown" when the
// build had no repository to ask.
func Commit() string {
	if Revision != "" {
		return Revision
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return "unknown"
}
