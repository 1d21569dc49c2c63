#!/bin/bash
# Puts Berth onto a Debian 12 or a Photon OS 5:
#
#   appliance/install.sh ROOT BINARIES
#
# ROOT is the root directory of a tree that does not run, or / inside the machine. BINARIES is the directory with berth
# and berth-agent. It can be run again, also over an older one. In the machine it installs the packages that are missing;
# in a tree it says what they are. Nothing is started, and nothing that must differ between two machines is made.
set -euo pipefail

# distribution is all that differs between the two.
#                   Debian 12                             Photon OS 5 (not run by us: see docs/building.md)
distribution() {
	case $1 in
	debian)
		pm_install="apt-get install -y --no-install-recommends"
		packages="systemd-sysv systemd-resolved systemd-timesyncd dbus postgresql-15 nftables openssh-server iproute2 e2fsprogs ca-certificates tzdata procps less open-vm-tools"
		postgres_bin=/usr/lib/postgresql/15/bin
		others="postgresql.service postgresql@.service nftables.service apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer dpkg-db-backup.timer man-db.timer"
		;;
	photon)
		pm_install="tdnf install -y"
		packages="systemd systemd-udev dbus postgresql15-server nftables openssh-server iproute2 e2fsprogs ca-certificates tzdata procps-ng less open-vm-tools shadow util-linux"
		postgres_bin=/usr/pgsql/15/bin
		others="postgresql15.service postgresql.service nftables.service iptables.service ip6tables.service cloud-init.target docker.service tdnf-automatic.timer"
		;;
	*) return 1 ;;
	esac
}

# What the packages must have brought, besides postgres_bin.
programs="/usr/lib/systemd/systemd-networkd /usr/lib/systemd/systemd-resolved /usr/lib/systemd/systemd-timesyncd /usr/sbin/nft /usr/sbin/sshd /usr/bin/ssh-keygen /usr/sbin/mkfs.ext4 /usr/sbin/resize2fs /usr/bin/ip"

die() {
	echo "install.sh: $*" >&2
	exit 1
}

[ $# = 2 ] || die "usage: install.sh ROOT BINARIES"
root=${1%/} # empty: this machine
binaries=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ "$(id -u)" = 0 ] || die "root is needed"
[ -d "$root/" ] || die "there is no directory $root"
for b in berth berth-agent; do
	[ -f "$binaries/$b" ] || die "$binaries has no $b (make build)"
done
if [ -z "$root" ] && [ ! -d /run/systemd/system ]; then
	die "this machine does not run systemd; for a tree, name its directory"
fi

# /etc/os-release may be a link, also an absolute one, to the other: first that.
release=$root/usr/lib/os-release
[ -e "$release" ] || release=$root/etc/os-release
id=$(sed -n 's/^ID="\{0,1\}\([a-z]*\)"\{0,1\}$/\1/p' "$release")
distribution "$id" || die "$root has ${id:-no system}: only debian and photon are known"

# absent names the programs that are not there.
absent() {
	local p
	for p in $programs "$postgres_bin/postgres" "$postgres_bin/initdb"; do
		# Links inside a tree may be absolute; that there is one is enough.
		[ -e "$root$p" ] || [ -L "$root$p" ] || echo "$p"
	done
}

if [ -n "$(absent)" ] && [ -z "$root" ]; then
	# shellcheck disable=SC2086 # lists of words
	DEBIAN_FRONTEND=noninteractive $pm_install $packages
fi
missing=$(absent)
[ -z "$missing" ] || die "$root/ lacks ${missing//$'\n'/ } (packages: $packages)"

# The files, as root's whoever checked them out. Directories that are links in the tree stay links.
mtime=()
[ -z "${SOURCE_DATE_EPOCH:-}" ] || mtime=(--mtime="@$SOURCE_DATE_EPOCH")
tar -C "$here/rootfs" --owner=0 --group=0 --mode=u=rwX,go=rX "${mtime[@]}" -cf - . |
	tar -C "$root/" --keep-directory-symlink --no-overwrite-dir -xpf -
for b in berth berth-agent; do
	# By another name first: the old one may be running.
	install -o 0 -g 0 -m 755 "$binaries/$b" "$root/usr/bin/.$b.new"
	mv -f "$root/usr/bin/.$b.new" "$root/usr/bin/$b"
done
ln -sfn "$postgres_bin" "$root/usr/lib/berth/postgresql"

# Users, and the directories that must be there before any disk is.
systemd-sysusers ${root:+--root="$root"}
systemd-tmpfiles ${root:+--root="$root"} --create --prefix=/etc/berth --prefix=/var/lib/berth-agent
install -d -m 755 "$root/storage" "$root/storage/data" "$root/storage/database" "$root/storage/log"

# Units: what the distribution runs and the appliance does not, and then what the appliance runs.
sc() { systemctl ${root:+--root="$root"} "$@"; }
for u in $others getty@tty1.service ctrl-alt-del.target; do
	# Masked also if it is not there: a package may bring it later.
	ln -sfn /dev/null "$root/etc/systemd/system/$u"
	find "$root/etc/systemd/system" -path "*.wants/$u" -delete
done
wanted() { sed -n "s/^$1 //p" "$root/usr/lib/systemd/system-preset/10-berth.preset"; }
# shellcheck disable=SC2046 # a list of words
sc enable --quiet $(wanted enable)
# Afterwards, since enabling one enables its friends.
for u in $(wanted disable); do
	find "$root/etc/systemd/system" \( -path "*.wants/$u" -o -path "*.requires/$u" \) -delete
	# Another name of a unit is a link too.
	[ ! -L "$root/etc/systemd/system/$u" ] || rm -f "$root/etc/systemd/system/$u"
done
sc set-default --quiet multi-user.target

# Names are resolved through systemd-resolved.
ln -sfn ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"

if [ -n "$root" ]; then
	# A tree becomes many machines: each makes these itself.
	rm -f "$root"/etc/ssh/ssh_host_*_key "$root"/etc/ssh/ssh_host_*_key.pub "$root/var/lib/systemd/random-seed"
	: >"$root/etc/machine-id"
	rm -f "$root/var/lib/dbus/machine-id"
	echo berth >"$root/etc/hostname"
	printf '127.0.0.1\tlocalhost\n::1\t\tlocalhost\n' >"$root/etc/hosts"
else
	systemctl daemon-reload
fi
