package command

import (
	"testing"

	"berth/services/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }
