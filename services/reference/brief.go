package reference

import "strings"

const (
	uploads = "/blobs/uploads/"
	// briefState is how much of an upload's state tells it from others.
	briefState = 12
)

// Brief is a request's path as logs show it. The last part of an upload's path is
// its state, by which whoever may push can go on with it: it is cut short.
func Brief(path string) string {
	i := strings.LastIndex(path, uploads)
	if i < 0 || len(path) <= i+len(uploads)+briefState {
		return path
	}
	return path[:i+len(uploads)+briefState] + "…"
}
