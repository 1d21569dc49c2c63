package conformance

import (
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/tests/berthtest"
)

// The conformance suite of the Open Container Initiative (the newest that Go's module proxy has: distribution
// specification 1.1.0-rc) finds nothing wrong: each of its checks is a subtest here.
func TestOfficialSuite(t *testing.T) {
	suite := berthtest.Tool(t, "oci-conformance")
	r := newRepository(t)
	sh := berthtest.NewShell(t,
		"SSL_CERT_FILE="+berth.CAFile(), "SSL_CERT_DIR=/nonexistent",
		"OCI_ROOT_URL="+berth.URL,
		"OCI_NAMESPACE="+r.name,
		"OCI_CROSSMOUNT_NAMESPACE="+r.project+"/other",
		"OCI_AUTOMATIC_CROSSMOUNT=0",
		"OCI_USERNAME="+r.login.User, "OCI_PASSWORD="+r.login.Password,
		"OCI_TEST_PULL=1", "OCI_TEST_PUSH=1", "OCI_TEST_CONTENT_DISCOVERY=1", "OCI_TEST_CONTENT_MANAGEMENT=1",
		"OCI_HIDE_SKIPPED_WORKFLOWS=0",
	)
	sh.Limit = 5 * time.Minute
	// Its exit status says no more than the report does, which is read below. The report is what must be there.
	output := sh.Any(t, suite)
	data, err := os.ReadFile(filepath.Join(sh.Dir, "junit.xml"))
	if err != nil {
		t.Fatalf("the suite wrote no report: %v\n%s", err, output)
	}
	var report struct {
		Cases []struct {
			Name    string    `xml:"name,attr"`
			Failure *string   `xml:"failure"`
			Skipped *struct{} `xml:"skipped"`
			Output  string    `xml:"system-out"`
		} `xml:"testcase"`
	}
	if err := xml.Unmarshal(data, &report); err != nil {
		t.Fatal(err)
	}
	if len(report.Cases) < 50 {
		t.Errorf("the suite made %d checks; it has more than 50", len(report.Cases))
	}
	seen := map[string]int{}
	for _, c := range report.Cases {
		name := strings.TrimPrefix(c.Name, "OCI Distribution Conformance Tests ")
		if seen[name]++; seen[name] > 1 {
			name = fmt.Sprintf("%s (%d)", name, seen[name])
		}
		if c.Skipped != nil && slices.Contains(alternatives, name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			switch {
			case c.Failure != nil:
				t.Errorf("%s\n%s", *c.Failure, c.Output)
			case c.Skipped != nil:
				t.Error("the suite skipped this, and should not have")
			}
		})
	}
}

// alternatives are checks that the suite makes only of registries that it may not push to, or that answered another
// check in the other one of two allowed ways. That they are left out is as it should be.
var alternatives = []string{
	"Pull Setup Get tag name from environment",
	"Push Cross-Repository Blob Mount Cross-mounting of nonexistent blob should yield session id",
	"Push Cross-Repository Blob Mount Cross-mounting without from, and automatic content discovery enabled should return a 201",
	"Content Discovery Setup Populate registry with test tags (no push)",
}
