// Package chart reads Helm charts: the archive that a chart's layer is
// (helm.sh, "Charts"; media type application/vnd.cncf.helm.chart.content.v1.tar+gzip).
package chart

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"path"
	"strings"

	"go.yaml.in/yaml/v3"

	"berth/appliance/fault"
)

// Media types of a chart's config and of its content.
const (
	ConfigType  = "application/vnd.cncf.helm.config.v1+json"
	ContentType = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
)

// Chart is what people want to see of a chart before they install it. Values
// and Readme are nil if the chart has none.
type Chart struct {
	Values       []byte
	Readme       []byte
	Dependencies []Dependency
}

// Dependency is another chart that a chart needs.
type Dependency struct {
	Name       string `json:"name" yaml:"name"`
	Version    string `json:"version" yaml:"version"`
	Repository string `json:"repository" yaml:"repository"`
}

// What a chart's archive may be before it is refused: a small file can unpack
// into one without end.
const (
	maxUnpacked = 64 << 20
	maxFile     = 4 << 20
	maxFiles    = 20_000
)

// Read unpacks a chart's archive as far as it must. Errors: Invalid.
func Read(r io.Reader) (Chart, error) {
	zipped, err := gzip.NewReader(r)
	if err != nil {
		return Chart{}, fault.Wrap(fault.Invalid, err, "the chart is not a gzip archive")
	}
	limited := &io.LimitedReader{R: zipped, N: maxUnpacked}
	files, err := wanted(tar.NewReader(limited))
	switch {
	case limited.N <= 0:
		return Chart{}, fault.New(fault.Invalid, "the chart is larger than %d bytes when unpacked", maxUnpacked)
	case err != nil:
		return Chart{}, fault.Wrap(fault.Invalid, err, "the chart's archive is damaged")
	}
	c := Chart{Values: files["values.yaml"], Readme: files["readme.md"], Dependencies: []Dependency{}}
	// Charts of version 1 list what they need in a file of its own.
	for _, name := range []string{"chart.yaml", "requirements.yaml"} {
		var list struct {
			Dependencies []Dependency `yaml:"dependencies"`
		}
		if err := yaml.Unmarshal(files[name], &list); err != nil {
			return Chart{}, fault.Wrap(fault.Invalid, err, "the chart's %s is not YAML", name)
		}
		c.Dependencies = append(c.Dependencies, list.Dependencies...)
	}
	return c, nil
}

// wanted gives the files of the chart itself, not of those packed into it, by
// name in lower case.
func wanted(archive *tar.Reader) (map[string][]byte, error) {
	files := map[string][]byte{}
	for range maxFiles {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		dir, name := path.Split(path.Clean(h.Name))
		name = strings.ToLower(name)
		if h.Typeflag != tar.TypeReg || strings.Count(dir, "/") != 1 || files[name] != nil {
			continue
		}
		switch name {
		case "values.yaml", "readme.md", "chart.yaml", "requirements.yaml":
			if h.Size > maxFile {
				return nil, fault.New(fault.Invalid, "%s is larger than %d bytes", name, maxFile)
			}
			if files[name], err = io.ReadAll(archive); err != nil {
				return nil, err
			}
		}
	}
	return nil, fault.New(fault.Invalid, "it has more than %d files", maxFiles)
}
