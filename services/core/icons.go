package core

import (
	"embed"
	"encoding/base64"
	"fmt"

	"berth/appliance/fault"
	"berth/services/artifact"
	"berth/services/reference"
)

//go:embed icons/*.svg
var iconFiles embed.FS

// icons are the pictures of the kinds of artifacts: by file name, their digest;
// by digest, their content.
type icons struct {
	digests  map[string]string
	contents map[string][]byte
}

func loadIcons() (icons, error) {
	i := icons{map[string]string{}, map[string][]byte{}}
	for _, name := range []string{"image", "chart", "other"} {
		content, err := iconFiles.ReadFile("icons/" + name + ".svg")
		if err != nil {
			return i, fmt.Errorf("cannot load the icons: %w", err)
		}
		d := reference.Of(reference.SHA256, content).String()
		i.digests[name], i.contents[d] = d, content
	}
	return i, nil
}

// of gives the digest of the picture that stands for an artifact.
func (i icons) of(a artifact.Info) string {
	switch a.Type {
	case "IMAGE":
		return i.digests["image"]
	case "CHART":
		return i.digests["chart"]
	}
	return i.digests["other"]
}

type icon struct {
	Content string `json:"content"` // base64
	Type    string `json:"content-type"`
}

func (a *API) getIcon(_ *request, in struct {
	Digest string `path:"digest"`
}) (icon, error) {
	content, ok := a.icons.contents[in.Digest]
	if !ok {
		return icon{}, fault.New(fault.NotFound, "the icon %s not found", in.Digest)
	}
	return icon{base64.StdEncoding.EncodeToString(content), "image/svg+xml"}, nil
}
