package registry

import (
	"net/http"
	"strings"

	"berth/appliance/fault"
	"berth/services/reference"
)

// endpoint is one of the OCI Distribution Specification's.
type endpoint uint8

const (
	endBase endpoint = iota
	endCatalog
	endTags
	endReferrers
	endManifest
	endBlob
	endUploads // POST: begin an upload
	endUpload  // GET, PATCH, PUT, DELETE: go on with one
)

// request is what a URL's path says.
type request struct {
	end  endpoint
	name string // repository; "" for endBase and endCatalog
	arg  string // tag, digest or upload session
}

var errNoRoute = fault.New(fault.NotFound, "there is no such endpoint").
	WithHint("see the OCI Distribution Specification for what lies below /v2/")

// route reads a path. Repository names have slashes in them, so it is cut from
// the right. It checks the name and nothing else.
func route(path string) (request, error) {
	rest, ok := strings.CutPrefix(path, "/v2")
	if !ok {
		return request{}, errNoRoute
	}
	switch rest {
	case "", "/":
		return request{end: endBase}, nil
	case "/_catalog":
		return request{end: endCatalog}, nil
	}
	req, err := cutRight(rest[1:])
	if err != nil {
		return request{}, err
	}
	return req, reference.CheckName(req.name)
}

func cutRight(rest string) (request, error) {
	if name, ok := strings.CutSuffix(rest, "/tags/list"); ok {
		return request{end: endTags, name: name}, nil
	}
	if name, ok := strings.CutSuffix(strings.TrimSuffix(rest, "/"), "/blobs/uploads"); ok {
		return request{end: endUploads, name: name}, nil
	}
	i := strings.LastIndexByte(rest, '/')
	if i < 0 {
		return request{}, errNoRoute
	}
	head, arg := rest[:i], rest[i+1:]
	if name, ok := strings.CutSuffix(head, "/manifests"); ok {
		return request{endManifest, name, arg}, nil
	}
	if name, ok := strings.CutSuffix(head, "/blobs/uploads"); ok {
		return request{endUpload, name, arg}, nil
	}
	if name, ok := strings.CutSuffix(head, "/blobs"); ok {
		return request{endBlob, name, arg}, nil
	}
	if name, ok := strings.CutSuffix(head, "/referrers"); ok {
		return request{endReferrers, name, arg}, nil
	}
	return request{}, errNoRoute
}

// Actions are what a token or a principal may do in a repository.
type Actions uint8

// The actions of the Docker token specification's repository scope.
const (
	Pull Actions = 1 << iota
	Push
	Delete
)

func (a Actions) String() string {
	var list []string
	for _, x := range []struct {
		bit  Actions
		name string
	}{{Pull, "pull"}, {Push, "push"}, {Delete, "delete"}} {
		if a&x.bit != 0 {
			list = append(list, x.name)
		}
	}
	return strings.Join(list, ",")
}

// needs is what a method on an endpoint takes, and the scope that a challenge
// asks for: writers get to read too.
func (req request) needs(method string) (need, ask Actions, allowed bool) {
	read := method == http.MethodGet || method == http.MethodHead
	switch req.end {
	case endBase, endCatalog, endTags, endReferrers:
		return Pull, Pull, read
	case endManifest:
		if method == http.MethodPut {
			return Push, Pull | Push, true
		}
	case endBlob:
	case endUploads:
		return Push, Pull | Push, method == http.MethodPost
	case endUpload:
		return Push, Pull | Push, method == http.MethodGet || method == http.MethodPatch || method == http.MethodPut || method == http.MethodDelete
	}
	if method == http.MethodDelete {
		return Delete, Delete, true
	}
	return Pull, Pull, read
}
