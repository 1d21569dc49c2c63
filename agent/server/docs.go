package server

import (
	"embed"
	"io/fs"
	"net/http"

	"github.com/swaggest/swgui/v5/static"
	"github.com/vearutop/statigz"
)

//go:embed docs/*
var docFiles embed.FS

// docsPolicy lets the page load nothing that is not ours, and run no script that
// is not a file.
const docsPolicy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'"

// docsPage serves the page that shows the OpenAPI document and tries requests:
// Swagger UI, with nothing from elsewhere.
func docsPage() (http.Handler, error) {
	own, err := fs.Sub(docFiles, "docs")
	if err != nil {
		return nil, err
	}
	ui := http.StripPrefix("/api/docs", statigz.FileServer(static.FS))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", docsPolicy)
		switch name := r.PathValue("file"); name {
		case "":
			http.ServeFileFS(w, r, own, "index.html")
		case "page.css", "page.js":
			http.ServeFileFS(w, r, own, name)
		default:
			ui.ServeHTTP(w, r)
		}
	}), nil
}
