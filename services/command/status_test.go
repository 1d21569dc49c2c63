package command

import (
	"context"
	"errors"
	"strings"
	"testing"

	"berth/appliance/fault"
	"berth/appliance/health"
	"berth/appliance/setting"
)

func TestWriteStatus(t *testing.T) {
	t.Parallel()
	report := health.Run(t.Context(), []health.Check{
		{Name: "token", About: "tokens are given out", DependsOn: []string{"database"}},
		{Name: "disk", About: "there is room", Hint: "make it larger", Probe: func(context.Context) error { return health.Warning(errors.New("filling")) }},
		{Name: "database", About: "it answers", Probe: func(context.Context) error {
			return fault.New(fault.Unavailable, "PostgreSQL does not run").WithHint("start it")
		}},
		{Name: "storage", About: "blobs can be written"},
	})
	var plain, coloured strings.Builder
	if err := errors.Join(writeStatus(&plain, report, false), writeStatus(&coloured, report, true)); err != nil {
		t.Fatal(err)
	}
	want := `UNHEALTHY

  database      PostgreSQL does not run
                do: start it
                because of it: token

  disk          filling
                do: make it larger

  token         it cannot work without: database
  storage       well: blobs can be written
`
	if plain.String() != want {
		t.Errorf("%s", plain.String())
	}
	if !strings.Contains(coloured.String(), "\x1b[31mdatabase") || !strings.Contains(coloured.String(), "\x1b[33mdisk") || !strings.Contains(coloured.String(), "\x1b[32mstorage") {
		t.Errorf("%q", coloured.String())
	}
}

func TestMetricsAddress(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		setting, service, address string
		must                      bool
	}{
		{"", "", "127.0.0.1:9180", false},
		{"", "registry", "127.0.0.1:9180", false},
		{"", "logs", "127.0.0.1:9184", false},
		{"127.0.0.1:7000", "", "127.0.0.1:7000", true},
		{"[::1]:7000", "core", "[::1]:7002", true},
		{"127.0.0.1:0", "jobs", "127.0.0.1:0", true},
	} {
		if address, must := metricsAddress(setting.Settings{Metrics: c.setting}, c.service); address != c.address || must != c.must {
			t.Errorf("%q %q: %s %v", c.setting, c.service, address, must)
		}
	}
}
