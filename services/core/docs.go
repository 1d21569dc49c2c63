package core

import (
	"embed"
	"io/fs"
	"net/http"
	"strings"

	"berth/appliance/apidocs"
)

//go:embed docs/*
var docFiles embed.FS

// docsPage serves the page at /api/docs that shows the OpenAPI document.
func docsPage() (http.Handler, error) {
	own, err := fs.Sub(docFiles, "docs")
	if err != nil {
		return nil, err
	}
	page := apidocs.Handler(own)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-cache")
		page.ServeHTTP(w, r)
	}), nil
}

// front sends a browser that opens the registry's address to what there is to
// read; programs are told that nothing is there.
func (a *API) front(w http.ResponseWriter, r *http.Request) {
	if !strings.Contains(r.Header.Get("Accept"), "text/html") {
		refusal(w, http.StatusNotFound, "NOT_FOUND", "path / was not found")
		return
	}
	http.Redirect(w, r, "/api/docs", http.StatusFound)
}
