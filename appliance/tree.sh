#!/bin/bash
# Makes the appliance's tree out of the distribution's and Berth:
#
#   appliance/tree.sh BASE BINARIES TREE
#
# BASE is not changed. TREE is made anew if BASE or the names of Berth's files are others than last time, and else only
# gets the files again, which takes a second. It is for tests, and for the image: nothing in it has ever run.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ $# = 3 ] || { echo "usage: tree.sh BASE BINARIES TREE" >&2; exit 1; }
base=$1 binaries=$2 tree=$3

mkdir -p "$(dirname "$tree")"
exec 9>"$tree.lock"
flock -w 600 9 || { echo "tree.sh: somebody else has been making $tree for ten minutes" >&2; exit 1; }

stamp=$({ echo "$base"; stat -c %Y "$base"; cd "$here/rootfs" && find . | sort; cat "$here/install.sh"; } | sha256sum)
if [ ! -d "$tree" ] || [ "$(cat "$tree.stamp" 2>/dev/null)" != "$stamp" ]; then
	rm -f "$tree.stamp"
	rm -rf --one-file-system "$tree.new" "$tree.old"
	cp -a --reflink=auto "$base" "$tree.new"
	# Tests may be running machines over the one that there was: it stays until the next time.
	[ ! -e "$tree" ] || mv "$tree" "$tree.old"
	mv "$tree.new" "$tree"
	"$here/install.sh" "$tree" "$binaries"
	echo "$stamp" >"$tree.stamp"
else
	"$here/install.sh" "$tree" "$binaries"
fi
