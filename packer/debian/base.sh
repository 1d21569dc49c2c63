#!/bin/bash
# Makes the appliance's Debian: debootstrap and the packages of packages.list, none of Berth yet. Prints the path of
# the tree, which is made once for each set of inputs and must not be changed by who uses it (copy or overlay it).
#
#   MIRROR, SECURITY   where packages come from (http; a snapshot of snapshot.debian.org gives an old list again)
#   LOCK               fail (the default): the packages must be those of packages.lock, to the version
#                      warn: say what differs, and go on;  write: make packages.lock anew
#   CACHE              where trees are kept (default ~/.cache/berth-image)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
MIRROR=${MIRROR:-http://deb.debian.org/debian}
SECURITY=${SECURITY:-http://deb.debian.org/debian-security}
LOCK=${LOCK:-fail}
CACHE=${CACHE:-$HOME/.cache/berth-image}
suite=bookworm
lock=$here/packages.lock

say() { echo "base: $*" >&2; }
die() { say "$*"; exit 1; }

case $LOCK in fail | warn | write) ;; *) die "LOCK is fail, warn or write, not $LOCK" ;; esac
[ "$(id -u)" = 0 ] || die "root is needed, for a tree whose files belong to root and others"
for p in debootstrap unshare chroot sha256sum flock; do
	command -v "$p" >/dev/null || die "$p is missing (make image-deps installs it)"
done

# key names the tree by all that goes into it.
key() {
	{ echo "$MIRROR $SECURITY $suite"; cat "$here/base.sh" "$here/packages.list" "$here/dpkg.cfg"
		[ ! -e "$lock" ] || cat "$lock"; } | sha256sum | cut -c1-16
}

# in_tree runs a command in the tree, in namespaces of its own, so that whatever happens no mount is left behind.
in_tree() {
	local tree=$1
	shift
	# shellcheck disable=SC2016 # expanded inside
	unshare --mount --pid --fork --kill-child -- sh -euc '
		mount -t proc proc "$0/proc"
		exec chroot "$0" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
			DEBIAN_FRONTEND=noninteractive http_proxy="$http_proxy" "$@"' "$tree" "$@"
}
export http_proxy=${http_proxy:-}

prepare() {
	local tree=$1
	# Nothing starts, no cluster is made, nothing is synced, and what the image must not have is not unpacked.
	printf '#!/bin/sh\nexit 101\n' >"$tree/usr/sbin/policy-rc.d"
	chmod 755 "$tree/usr/sbin/policy-rc.d"
	install -D -m 644 "$here/dpkg.cfg" "$tree/etc/dpkg/dpkg.cfg.d/berth"
	echo force-unsafe-io >"$tree/etc/dpkg/dpkg.cfg.d/berth-build"
	install -d "$tree/etc/postgresql-common/createcluster.d" "$tree/etc/initramfs-tools/conf.d"
	echo 'create_main_cluster = false' >"$tree/etc/postgresql-common/createcluster.d/berth.conf"
	echo 'do_symlinks = yes' >"$tree/etc/kernel-img.conf" # GRUB's menu names /vmlinuz and /initrd.img
	printf 'RESUME=none\nCOMPRESS=zstd\n' >"$tree/etc/initramfs-tools/conf.d/berth"
	printf 'APT::Install-Recommends "false";\nAcquire::Languages "none";\n' >"$tree/etc/apt/apt.conf.d/90berth"
	cat >"$tree/etc/apt/sources.list" <<-END
		deb $MIRROR $suite main
		deb $MIRROR $suite-updates main
		deb $SECURITY $suite-security main
	END
	cp /etc/resolv.conf "$tree/etc/resolv.conf"
	# Old snapshots say that they have expired.
	case $MIRROR in *snapshot*) echo 'Acquire::Check-Valid-Until "false";' >"$tree/etc/apt/apt.conf.d/99build" ;; esac
}

# finish takes away what is of this build and this machine alone, and what no copy of the image may share.
finish() {
	local tree=$1
	rm -f "$tree"/usr/sbin/policy-rc.d "$tree"/etc/dpkg/dpkg.cfg.d/berth-build "$tree"/etc/apt/apt.conf.d/99build \
		"$tree"/etc/resolv.conf "$tree"/etc/hostname "$tree"/etc/ssh/ssh_host_* "$tree"/etc/ssl/private/* \
		"$tree"/etc/ssl/certs/ssl-cert-snakeoil.pem "$tree/etc/.resolv.conf.systemd-resolved.bak" "$tree"/var/cache/ldconfig/aux-cache \
		"$tree"/var/lib/dbus/machine-id "$tree"/var/lib/systemd/random-seed "$tree"/etc/vmware-tools/GuestProxyData/server/*
	: >"$tree/etc/machine-id" # empty, not missing: made at first boot, and systemd resets no unit to its preset
	find "$tree/var/cache" "$tree/var/log" "$tree/tmp" "$tree/var/tmp" "$tree/var/lib/apt/lists" -mindepth 1 -type f -delete
	rm -rf "$tree"/var/cache/debconf/* "$tree"/var/cache/apt/archives "$tree"/var/lib/apt/lists/* "$tree"/run/* "$tree"/debootstrap
	# What minbase brought before dpkg knew what to leave out; nobody needs links to it either.
	find "$tree/usr/share/doc" -mindepth 1 ! -type d ! -name copyright -delete
	rm -rf "${tree:?}"/usr/share/{man,info,lintian,bug}/* "$tree"/usr/share/zoneinfo/{posix,right}
	find "$tree/usr/share/locale" -mindepth 1 -maxdepth 1 -type d -exec rm -rf {} +
	find "$tree/usr/share/doc" -mindepth 1 -type d -empty -delete
	licences "$tree"
	ln -s ../run/systemd/resolve/stub-resolv.conf "$tree/etc/resolv.conf"
	# What the distribution would start by itself: no update comes but in a new image, and the rest is Berth's to start.
	in_tree "$tree" systemctl -q disable apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
		e2scrub_reap.service postgresql.service ssh.service
	in_tree "$tree" passwd -q -l root
	# A password's age is the day of the build otherwise.
	sed -i -E 's/^([^:]*:[^:]*):[0-9]+:/\1:19000:/' "$tree/etc/shadow"
	rm -f "$tree"/etc/{passwd,group,shadow,gshadow,subuid,subgid}- "$tree"/var/lib/dpkg/*-old
	# shellcheck disable=SC2016 # dpkg-query expands it
	in_tree "$tree" dpkg-query -W -f '${Package} ${Version}\n' | LC_ALL=C sort >"$tree/../packages"
}

# licences puts back the links by which a package has the licence of another of the same source: dpkg has left them
# out with the documentation.
licences() {
	local tree=$1 package source other
	declare -A holder
	# shellcheck disable=SC2016 # dpkg-query expands it
	in_tree "$tree" dpkg-query -W -f '${Package} ${source:Package}\n' >"$tree/../sources"
	while read -r package source; do
		[ ! -e "$tree/usr/share/doc/$package/copyright" ] || holder[$source]=${holder[$source]:-$package}
	done <"$tree/../sources"
	while read -r package source; do
		other=${holder[$source]:-}
		[ -e "$tree/usr/share/doc/$package" ] || ln -s "${other:-no-licence}" "$tree/usr/share/doc/$package"
	done <"$tree/../sources"
	rm "$tree/../sources"
}

build() {
	local work=$1 words
	words=$(sed 's/#.*//' "$here/packages.list" | xargs)
	say "debootstrap of $suite from $MIRROR"
	debootstrap --variant=minbase --merged-usr "$suite" "$work/root" "$MIRROR" >"$work/log" 2>&1 ||
		{ tail -20 "$work/log" >&2; die "debootstrap failed"; }
	prepare "$work/root"
	say "installing $(wc -w <<<"$words") packages and what they need"
	# shellcheck disable=SC2086 # a list of words
	{ in_tree "$work/root" apt-get update -qq &&
		in_tree "$work/root" apt-get -qq -y dist-upgrade &&
		in_tree "$work/root" apt-get -qq -y install $words; } >>"$work/log" 2>&1 ||
		{ tail -30 "$work/log" >&2; die "apt-get failed"; }
	finish "$work/root"
	rm -f "$work/log"
}

# differs says what is not as in the lock file.
differs() {
	[ -e "$lock" ] || { echo "packer/debian/packages.lock is missing"; return 0; }
	! diff <(grep -v '^#' "$lock") "$1/packages" >"$1/difference" || return 1
	sed -n 's/^< /locked: /p; s/^> /found:  /p' "$1/difference"
}

mkdir -p "$CACHE"
exec 9>"$CACHE/.lock"
flock -w 1800 9 || die "somebody else has been building for half an hour ($CACHE/.lock)"
find "$CACHE" -mindepth 1 -maxdepth 1 -type d -mtime +30 -exec rm -rf --one-file-system {} + # not used for a month
place=$CACHE/$(key)
if [ "$LOCK" = write ] || [ ! -d "$place/root" ] || { [ "$LOCK" = fail ] && differs "$place" >/dev/null; }; then
	work=$(mktemp -d "$CACHE/building-XXXXXX")
	chmod 755 "$work"
	trap 'rm -rf --one-file-system "$work"' EXIT
	trap 'exit 130' INT TERM
	began=$SECONDS
	build "$work"
	if [ "$LOCK" = write ]; then
		{ echo "# Debian $suite for the appliance: package and version. Made by: make lock"; cat "$work/packages"; } >"$lock"
		say "packages.lock has $(wc -l <"$work/packages") packages"
		place=$CACHE/$(key)
	fi
	[ ! -e "$place" ] || mv "$place" "$work/old"
	mkdir "$place.new"
	mv "$work/root" "$work/packages" "$place.new/"
	mv "$place.new" "$place"
	say "made in $((SECONDS - began)) s, $(du -sm "$place/root" | cut -f1) MB"
fi
touch "$place"
if difference=$(differs "$place"); then
	say "the packages are not those of packages.lock:"
	echo "$difference" | head -40 >&2
	[ "$LOCK" != fail ] || die "the mirror has moved on: look at what is new, then \`make lock\` and commit (or MIRROR=http://snapshot.debian.org/...)"
fi
echo "$place/root"
