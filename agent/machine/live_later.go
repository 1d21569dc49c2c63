package machine

import (
	"context"
	"time"

	"berth/agent/api"
	"berth/appliance/fault"
	"berth/appliance/setting"
)

func later(what string) error {
	return fault.New(fault.Unsupported, "%s is not in this build", what)
}

func (l *Live) ApplyTime(context.Context, setting.Time) error { return later("setting the time") }
func (l *Live) TestTime(context.Context, string) (api.TimeAnswer, error) {
	return api.TimeAnswer{}, later("testing a time server")
}
func (l *Live) TimeNow(context.Context) (api.Time, error) { return api.Time{Now: time.Now()}, nil }
func (l *Live) ApplyFirewall(context.Context, setting.Firewall, bool) error {
	return later("the firewall")
}
