package server

import (
	"embed"
	"io/fs"
	"net/http"

	"berth/appliance/apidocs"
)

//go:embed docs/*
var docFiles embed.FS

// docsPage serves the page that shows the OpenAPI document.
func docsPage() (http.Handler, error) {
	own, err := fs.Sub(docFiles, "docs")
	if err != nil {
		return nil, err
	}
	return apidocs.Handler(own), nil
}
