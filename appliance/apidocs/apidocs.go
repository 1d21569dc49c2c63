// Package apidocs is the page at /api/docs that shows an OpenAPI document and tries
// requests: Swagger UI, with nothing from elsewhere.
package apidocs

import (
	_ "embed"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"github.com/swaggest/swgui/v5/static"
	"github.com/vearutop/statigz"
)

//go:embed page/page.css
var style string

// policy lets the page load nothing that is not ours, and run no script that is
// not a file.
const policy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'"

// Handler serves the page below /api/docs, for a pattern whose wildcard is called
// file. own has what differs from API to API: index.html and page.js.
func Handler(own fs.FS) http.Handler {
	ui := http.StripPrefix("/api/docs", statigz.FileServer(static.FS))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", policy)
		switch name := r.PathValue("file"); name {
		case "":
			http.ServeFileFS(w, r, own, "index.html")
		case "page.js":
			http.ServeFileFS(w, r, own, name)
		case "page.css":
			http.ServeContent(w, r, name, time.Time{}, strings.NewReader(style))
		default:
			ui.ServeHTTP(w, r)
		}
	})
}
