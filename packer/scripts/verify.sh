#!/bin/bash
# Inside the machine that is built: refuses an image that would not work, before there is an OVA of it.
#   BERTH_VERSION   what the programs must say that they are
set -euo pipefail
faults=0
fault() {
	echo "verify: $*" >&2
	faults=$((faults + 1))
}

for p in berth berth-agent; do
	said=$("/usr/bin/$p" --version 2>&1) || fault "$p does not run: $said"
	case " $said " in *" $BERTH_VERSION "*) ;; *) fault "$p says that it is \"$said\", not $BERTH_VERSION" ;; esac
done

# Units: all that are ours are well-formed, those that the preset enables are enabled, none has failed.
systemctl daemon-reload
mapfile -t units < <(find /usr/lib/systemd/system /lib/systemd/system/ -maxdepth 1 -name 'berth*.*' -type f -printf '%f\n' | sort -u)
[ "${#units[@]}" -gt 0 ] || fault "there is no unit of Berth's"
for u in "${units[@]}"; do
	case $u in *@.*) continue ;; esac
	said=$(systemd-analyze verify --recursive-errors=no --man=no "$u" 2>&1) || said="$said (refused)"
	[ -z "$said" ] || fault "$u: $said"
done
while read -r u; do
	systemctl is-enabled --quiet "$u" || fault "$u is not enabled"
done < <(sed -n 's/^enable //p' /usr/lib/systemd/system-preset/10-berth.preset)
failed=$(systemctl list-units --failed --plain --no-legend)
[ -z "$failed" ] || fault "units have failed: $failed"

/usr/sbin/sshd -t || fault "sshd refuses its settings"
for f in /etc/berth/nftables.conf /usr/lib/berth/nftables.conf; do
	[ ! -e "$f" ] || nft -c -f "$f" || fault "nft refuses $f"
done
case $(getent shadow root | cut -d: -f2) in '!'* | '*'*) ;; *) fault "root has a password" ;; esac

# The bill of materials tells the truth: nothing has been installed besides.
if [ -e /root/payload/packages ] && command -v dpkg-query >/dev/null; then
	# shellcheck disable=SC2016 # dpkg-query expands it
	dpkg-query -W -f '${Package} ${Version}\n' | LC_ALL=C sort | diff /root/payload/packages - >&2 ||
		fault "the packages are not those of the list"
fi

[ "$faults" = 0 ] || { echo "verify: $faults faults" >&2; exit 1; }
echo "verify: ${#units[@]} units, $(berth --version)"
