#!/bin/bash
# Makes the OVA on Photon OS 5, for whoever has its ISO (docs/building.md says what of this was run, and what was not):
#
#   build.sh qemu|vsphere-iso PAYLOAD.tar DIST [packer's options, such as -var iso=/path/photon.iso]
#
# PAYLOAD.tar is what packer/debian/build.sh makes (KEEP=1), with a bill of materials that is Photon's.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../.." && pwd)
[ $# -ge 3 ] || { sed -n '2,/^set/s/^# \?//p' "$0" >&2; exit 2; }
way=$1 payload=$(realpath "$2") dist=$(realpath "$3")
shift 3
case $way in qemu | vsphere-iso) ;; *) echo "photon: qemu or vsphere-iso, not $way" >&2; exit 2 ;; esac
bin=${BINARIES:-$top/bin}
version=$("$bin/ova" --version | awk '{print $NF}')
export CHECKPOINT_DISABLE=1 PACKER_CACHE_DIR=$dist/packer_cache

work=$(mktemp -d "$dist/.photon-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
mkdir "$work/http"
ssh-keygen -q -t ed25519 -N '' -C build -f "$work/key"
sed "s|@PUBLIC_KEY@|$(cat "$work/key.pub")|" "$here/ks.json" >"$work/http/ks.json"
packer build -only="$way.photon" -var "payload=$payload" -var "http=$work/http" -var "key=$work/key" \
	-var "output=$work/machine" -var "version=$version" "$@" "$here"
disk=$work/machine/system.raw
if [ "$way" = vsphere-iso ]; then
	disk=$work/system.raw
	qemu-img convert -O raw "$work"/machine-exported/*disk*.vmdk "$disk"
fi
"$bin/ova" build --out "$dist/berth-$version-photon.ova" --disk "system=$disk" --base photon
