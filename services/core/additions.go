package core

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"

	"berth/appliance/fault"
	"berth/services/artifact"
	"berth/services/chart"
	"berth/services/reference"
)

// additionsOf names what an artifact has in addition.
func additionsOf(i artifact.Info) []string {
	switch {
	case i.Config.IsZero():
		return nil
	case i.Type == "IMAGE":
		return []string{"build_history"}
	case i.Type == "CHART":
		return []string{"values.yaml", "readme.md", "dependencies"}
	}
	return nil
}

func (a *API) getAddition(r *request, in struct {
	artifactPath
	Addition string `path:"addition"`
}) (text, error) {
	i, err := a.Artifacts.Artifact(r.Context(), in.whole(), in.Reference, artifact.With{})
	if err != nil {
		return text{}, err
	}
	addition := strings.ToLower(in.Addition)
	switch {
	case addition == "vulnerabilities":
		return text{}, fault.New(fault.NotFound, "no scanner registration configured for project: %d", r.target.ProjectID)
	case !slices.Contains(additionsOf(i), addition):
		return text{}, fault.New(fault.Invalid, "addition %s isn't supported for %s", strings.ToUpper(in.Addition), i.Type)
	case addition == "build_history":
		return a.buildHistory(r.Context(), i)
	}
	c, err := a.readChart(r.Context(), i)
	if err != nil {
		return text{}, err
	}
	body, mediaType := c.Values, "text/plain; charset=utf-8"
	switch addition {
	case "readme.md":
		body, mediaType = c.Readme, "text/markdown; charset=utf-8"
	case "dependencies":
		if body, err = json.Marshal(c.Dependencies); err != nil {
			return text{}, err
		}
		mediaType = jsonText
	}
	if body == nil {
		return text{}, fault.New(fault.NotFound, "the chart has no %s", addition)
	}
	return text{mediaType, string(body)}, nil
}

const jsonText = "application/json; charset=utf-8"

func (a *API) buildHistory(ctx context.Context, i artifact.Info) (text, error) {
	config, err := a.Artifacts.ReadConfig(ctx, i, a.OpenBlob)
	if err != nil {
		return text{}, err
	}
	var image struct {
		History json.RawMessage `json:"history"`
	}
	if err := json.Unmarshal(config, &image); err != nil {
		return text{}, fault.Wrap(fault.Invalid, err, "the image's config is not JSON")
	}
	if image.History == nil {
		image.History = json.RawMessage("[]")
	}
	return text{jsonText, string(image.History)}, nil
}

// readChart unpacks the chart that an artifact holds.
func (a *API) readChart(ctx context.Context, i artifact.Info) (c chart.Chart, err error) {
	m, err := a.Artifacts.Manifest(ctx, i.Repository, i.Digest)
	if err != nil {
		return c, err
	}
	var manifest struct {
		Layers []struct {
			MediaType string           `json:"mediaType"`
			Digest    reference.Digest `json:"digest"`
		} `json:"layers"`
	}
	if err := json.Unmarshal(m.Payload, &manifest); err != nil {
		return c, fault.Wrap(fault.Invalid, err, "the chart's manifest is not JSON")
	}
	for _, layer := range manifest.Layers {
		if layer.MediaType != chart.ContentType {
			continue
		}
		b, err := a.Artifacts.Blob(ctx, i.Repository, layer.Digest)
		if err != nil {
			return c, err
		}
		f, err := a.OpenBlob(ctx, b.Key)
		if err != nil {
			return c, err
		}
		defer func(f io.Closer) { err = errors.Join(err, f.Close()) }(f)
		return chart.Read(f)
	}
	return c, fault.New(fault.NotFound, "the artifact has no chart in it")
}
