package configuration_test

import (
	"testing"

	"berth/services/configuration"
	"berth/services/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// What is not set has its default; what is set counts at once, and settings
// that this package does not read are none of its business.
func TestLoad(t *testing.T) {
	pool := dbtest.New(t)
	s, err := configuration.Load(t.Context(), pool)
	if err != nil || s != configuration.Defaults() {
		t.Errorf("fresh: %+v, %v", s, err)
	}
	if _, err := pool.Exec(t.Context(), `INSERT INTO configurations (key, value) VALUES ('self_registration', 'true'), ('storage_per_project', '1024'), ('robot_name_prefix', '"r"')`); err != nil {
		t.Fatal(err)
	}
	want := configuration.Defaults()
	want.SelfRegistration, want.StoragePerProject = true, 1024
	if s, err := configuration.Load(t.Context(), pool); err != nil || s != want {
		t.Errorf("set: %+v, %v", s, err)
	}
	if _, err := pool.Exec(t.Context(), `UPDATE configurations SET value = '"yes"' WHERE key = 'self_registration'`); err != nil {
		t.Fatal(err)
	}
	if _, err := configuration.Load(t.Context(), pool); err == nil {
		t.Error("a setting of the wrong type was accepted")
	}
}
