package proxy

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"berth/services/metric"
)

// class is what kind of thing a request asks for. Metrics are by class: a path
// is a stranger's text, and each new one would be a series of its own.
type class uint8

const (
	classOther class = iota
	classMalformed
	classBase
	classCatalog
	classTags
	classReferrers
	classManifest
	classBlob
	classUpload
	classToken
	classAPI
	classLogin
	classes // how many there are
)

var classNames = [classes]string{"other", "malformed", "base", "catalog", "tags", "referrers", "manifest", "blob", "upload", "token", "api", "login"}

// classOf tells from a path that is not malformed.
func classOf(path string) class {
	rest, ok := strings.CutPrefix(path, "/v2")
	switch {
	case ok && (rest == "" || rest == "/"):
		return classBase
	case ok && rest[0] == '/':
		return registryClass(rest)
	case path == "/service/token":
		return classToken
	case strings.HasPrefix(path, "/api/"):
		return classAPI
	case strings.HasPrefix(path, "/c/"):
		return classLogin
	}
	return classOther
}

// registryClass looks at the end: repository names come first, and may have
// anything in them.
func registryClass(path string) class {
	if path == "/_catalog" {
		return classCatalog
	}
	if strings.HasSuffix(path, "/tags/list") {
		return classTags
	}
	head := path[:strings.LastIndexByte(path, '/')]
	switch {
	case strings.HasSuffix(head, "/manifests"):
		return classManifest
	case strings.HasSuffix(head, "/blobs/uploads"), strings.HasSuffix(path, "/blobs/uploads"):
		return classUpload
	case strings.HasSuffix(head, "/blobs"):
		return classBlob
	case strings.HasSuffix(head, "/referrers"):
		return classReferrers
	}
	return classOther
}

// meters are the metrics of a door. The zero value measures nothing.
type meters [classes]*metric.Route

func newMeters(r prometheus.Registerer, d *Door) (m meters) {
	h := metric.NewHTTP(r, metric.Large)
	for c, name := range classNames {
		m[c] = h.Route(name)
	}
	if r != nil {
		f := promauto.With(r)
		f.NewGaugeFunc(prometheus.GaugeOpts{Name: "berth_connections", Help: "Connections of clients that are open."}, func() float64 { return float64(len(d.slots)) })
		f.NewGaugeFunc(prometheus.GaugeOpts{Name: "berth_connections_max", Help: "How many there may be; more wait."}, func() float64 { return float64(cap(d.slots)) })
	}
	return m
}
