#!/bin/sh
# Builds the programs that the tests drive, once, and prints the directory they are in.
#
#   tests/tools/build.sh          build what is missing, print the directory
#   tests/tools/build.sh --dir    only print the directory
#
# The directory is named after everything that decides what is in it (the pinned versions, the toolchain,
# this script), so it is shared by all checkouts and never stale.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${BERTH_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/berth-tools}
key=$({ go version; cd "$here"; cat go.mod go.sum conformance/go.mod conformance/go.sum oidcprovider/*.go oidcprovider/go.* build.sh; } |
	sha256sum | cut -c 1-16)
dir=$cache/$key

if [ "${1:-}" = --dir ] || [ -e "$dir/.complete" ]; then
	echo "$dir"
	exit 0
fi

mkdir -p "$cache"
exec 9>"$cache/$key.lock"
flock 9 # somebody else may be building the same
if [ ! -e "$dir/.complete" ]; then
	echo "building the test tools into $dir (this takes minutes, and is done once)" >&2
	rm -rf "$dir"
	mkdir -p "$dir"
	export CGO_ENABLED=0
	# One go command for all of them: what they share is compiled once.
	(cd "$here" && go build -trimpath -ldflags '-s -w' -o "$dir/" tool) >&2
	(cd "$here/conformance" && go test -c -trimpath -ldflags '-s -w' -o "$dir/oci-conformance" \
		github.com/opencontainers/distribution-spec/conformance) >&2
	(cd "$here/oidcprovider" && go build -trimpath -ldflags '-s -w' -o "$dir/" .) >&2
	touch "$dir/.complete"
fi
echo "$dir"
