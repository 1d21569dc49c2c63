#!/bin/bash
# Makes the OVA, from the base tree to dist/, and says what takes how long. `make ova` calls it, with everything built:
#
#   build.sh DIST
#
#   COMMIT   of what is built; EPOCH   its time: nothing in the image is newer
#   KEEP     not empty: the working directory stays, for a look
# BINARIES (bin) has berth, berth-agent and ova. MIRROR, LOCK and others: see base.sh.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../.." && pwd)
[ $# = 1 ] || { sed -n '2,/^set/s/^# \?//p' "$0" >&2; exit 2; }
mkdir -p "$1"
dist=$(cd "$1" && pwd)
bin=${BINARIES:-$top/bin}
modules=${GOMODCACHE:-$(go env GOMODCACHE 2>/dev/null || echo "$HOME/go/pkg/mod")}
export CHECKPOINT_DISABLE=1 PACKER_LOG=${PACKER_LOG:-} PACKER_CACHE_DIR

die() { echo "ova: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || die "root is needed, for a tree whose files belong to root and others"
for f in "$bin/berth" "$bin/berth-agent" "$bin/ova" "$top/appliance/install.sh" "$top/appliance/rootfs"; do
	[ -e "$f" ] || die "$f is missing"
done
for p in packer qemu-img qemu-system-x86_64 ssh-keygen mkfs.ext4 grub-mkimage mcopy; do
	command -v "$p" >/dev/null || die "$p is missing (make image-deps installs it)"
done
free=$(df -Pm "$dist" | awk 'END {print $4}')
[ "$free" -ge 6000 ] || die "$dist has $free MB free, and 6000 are needed while it works"
version=$("$bin/ova" --version | awk '{print $NF}')
name=berth-$version

work=$(mktemp -d "$dist/.build-XXXXXX")
PACKER_CACHE_DIR=$work/packer_cache
# shellcheck disable=SC2329 # by the trap
cleanup() {
	kill "${packer:-}" 2>/dev/null && wait "$packer" 2>/dev/null
	if [ -n "${KEEP:-}" ]; then
		echo "kept: $work" >&2
	else
		rm -rf --one-file-system "$work"
	fi
}
trap cleanup EXIT
trap 'exit 130' INT TERM
began=$SECONDS
stage() {
	[ -z "${now:-}" ] || printf 'ova: %4d s  %s\n' $((SECONDS - since)) "$now" >&2
	now=$1 since=$SECONDS
	[ -z "$now" ] || echo "ova:         $now ..." >&2
}

stage "the base tree"
base=$("$here/base.sh")
# The time of what is neither ours nor new: that of the commit.
export SOURCE_DATE_EPOCH=${EPOCH:-0}

stage "bill of materials and licences"
mkdir -p "$work/payload/bin" "$work/payload/doc"
"$bin/ova" sbom --tree "$base" --binary "$bin/berth" --binary "$bin/berth-agent" --modules "$modules" --go "${GOROOT:-$(go env GOROOT)}" \
	--commit "${COMMIT:-unknown}" --out "$work/bom"
cp "$work/bom/sbom.cdx.json" "$work/payload/doc/"
mkdir "$work/payload/doc/licences"
cp -r "$work/bom/licences/go" "$work/payload/doc/licences/" # Debian's are where Debian puts them
cp "${base%/root}/packages" "$work/payload/packages"
cp "$bin/berth" "$bin/berth-agent" "$work/payload/bin/"
mkdir "$work/payload/appliance"
cp -r "$top/appliance/rootfs" "$top/appliance/install.sh" "$work/payload/appliance/"
tar -C "$work/payload" -cf "$work/payload.tar" .

stage "the disk to begin with"
# For this build alone: its key, a host key, an address. Only the tree comes out of the machine, and without these.
cp -a "$base" "$work/tree"
ssh-keygen -q -t ed25519 -N '' -C build -f "$work/key"
ssh-keygen -q -t ed25519 -N '' -C build -f "$work/tree/etc/ssh/ssh_host_ed25519_key"
install -d -m 700 "$work/tree/root/.ssh"
install -m 600 "$work/key.pub" "$work/tree/root/.ssh/authorized_keys"
printf '[Match]\nType=ether\n[Network]\nDHCP=ipv4\n' >"$work/tree/etc/systemd/network/00-build.network"
for u in ssh systemd-networkd; do
	ln -s "/lib/systemd/system/$u.service" "$work/tree/etc/systemd/system/multi-user.target.wants/$u.service"
done
SEED=build "$here/disk.sh" "$work/tree" "$work/base.raw"
rm -rf --one-file-system "$work/tree"
truncate -s 3G "$work/tree.tar"

stage "packer: install, verify, clean in the running machine"
nice -n 5 packer build -color=false -var "disk=$work/base.raw" -var "payload=$work/payload.tar" -var "tree=$work/tree.tar" \
	-var "key=$work/key" -var "output=$work/machine" -var "version=$version" "$here" >"$work/packer.log" 2>&1 &
packer=$!
if ! wait "$packer"; then
	tail -40 "$work/packer.log" >&2
	cp "$work/packer.log" "$dist/packer.log"
	tail -c 2000 "$work/tree.tar.serial" >&2 || true
	die "packer failed; its log is $dist/packer.log"
fi
packer=
grep -o 'verify: .*' "$work/packer.log" >&2 || die "packer has not verified the image"
rm -rf "$work/machine" "$work/base.raw" "$work/key" "$work/key.pub"

stage "the disk"
mkdir "$work/tree"
tar -C "$work/tree" --numeric-owner --xattrs --xattrs-include='*' --acls -xpf "$work/tree.tar"
rm -f "$work/tree.tar"
"$here/tidy.sh" "$work/tree"
SEED="$version ${COMMIT:-unknown}" "$here/disk.sh" "$work/tree" "$work/system.raw"
(cd "$work/tree" && find . -printf '%P %y %m %U %G %l\n' | LC_ALL=C sort) >"$work/files"

stage "the OVA"
"$bin/ova" build --out "$work/$name.ova" --disk "system=$work/system.raw" --base debian \
	--full-version "$version (commit ${COMMIT:-unknown})" >&2
"$bin/ova" lint "$work/$name.ova" >&2

stage "beside it"
tar -C "$work/bom" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -cf - licences | xz -T2 >"$work/$name-licences.tar.xz"
cp "$work/bom/sbom.cdx.json" "$work/$name.cdx.json"
cp "${base%/root}/packages" "$work/$name.packages"
cp "$work/files" "$work/$name.files"
(cd "$work" && sha256sum "$name.ova" >"$name.ova.sha256")
for f in "$name".{ova,ova.sha256,cdx.json,packages,files} "$name-licences.tar.xz"; do
	mv -f "$work/$f" "$dist/$f"
	[ -z "${SUDO_UID:-}" ] || chown "$SUDO_UID" "$dist/$f"
done
stage ""
printf 'ova: %4d s  all of it: %s, %d MB\n' $((SECONDS - began)) "$dist/$name.ova" $(($(stat -c %s "$dist/$name.ova") / 1000000)) >&2
