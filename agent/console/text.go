package console

import (
	"fmt"
	"strings"
)

// bytesOf is a size in words.
func bytesOf(n uint64) string {
	units := []string{"bytes", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", f), ".0") + " " + units[i]
}

// fingerprint breaks AA:BB:… into groups of four bytes, so that eyes find their place.
func fingerprint(f string) []string {
	pairs := strings.Split(f, ":")
	var out []string
	for i := 0; i < len(pairs) && f != ""; i += 4 {
		out = append(out, strings.Join(pairs[i:min(i+4, len(pairs))], ":"))
	}
	return out
}
