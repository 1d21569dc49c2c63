// Package conformance pins the OCI's own conformance suite for registries, which is a test binary: see
// ../build.sh. It is a module of its own because the suite's dependencies are old.
package conformance

import (
	_ "github.com/opencontainers/distribution-spec/conformance"

	// What the suite's test files import: named here, or go mod tidy would drop it.
	_ "github.com/onsi/ginkgo"
	_ "github.com/onsi/gomega"
)
