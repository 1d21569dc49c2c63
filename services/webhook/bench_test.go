package webhook_test

import (
	"testing"
	"time"

	"berth/services/webhook"
)

// BenchmarkDelivery answers how long it takes from an event's commit to its
// delivery, one at a time: ms/delivery is the median.
func BenchmarkDelivery(b *testing.B) {
	u := setup(b, loopback).run()
	url, got := target(b, false, 200)
	u.policy([]webhook.Target{{Type: "http", Address: url}}, "PUSH_ARTIFACT")
	u.happen(push())
	wait(b, got)
	var all []time.Duration
	for b.Loop() {
		began := time.Now()
		u.happen(push())
		wait(b, got)
		all = append(all, time.Since(began))
		time.Sleep(300 * time.Millisecond) // pushes of a person, not of a machine
	}
	b.ReportMetric(float64(median(all))/1e6, "ms/delivery")
}

// BenchmarkBurst answers how fast many deliveries go.
func BenchmarkBurst(b *testing.B) {
	u := setup(b, loopback).run()
	url, got := target(b, false, 200)
	u.policy([]webhook.Target{{Type: "http", Address: url}}, "PUSH_ARTIFACT")
	const n = 500
	for b.Loop() {
		began := time.Now()
		for range n {
			u.happen(push())
		}
		for range n {
			wait(b, got)
		}
		b.ReportMetric(n/time.Since(began).Seconds(), "deliveries/s")
	}
}

func median(all []time.Duration) time.Duration {
	for i := range all { // few
		for j := i; j > 0 && all[j] < all[j-1]; j-- {
			all[j], all[j-1] = all[j-1], all[j]
		}
	}
	return all[len(all)/2]
}
