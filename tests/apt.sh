#!/bin/sh
# Installs the Debian packages named as arguments, those that are missing, without starting anything of theirs:
# the tests and `make run` start what they need themselves, on addresses of their own.
set -eu

missing=
for p in "$@"; do
	dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
	echo "please install by hand, this is not a Debian system:$missing" >&2
	exit 1
fi
sudo=
if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null || { echo "please install as root:$missing" >&2; exit 1; }
	sudo=sudo
fi
echo "installing:$missing" >&2

# A policy of "start nothing", unless the machine has its own; and no PostgreSQL cluster of the distribution's.
policy=/usr/sbin/policy-rc.d
cluster=/etc/postgresql-common/createcluster.d/berth.conf
undo() {
	[ -z "${made_policy:-}" ] || $sudo rm -f "$policy"
	$sudo rm -f "$cluster"
}
trap undo EXIT
trap 'exit 130' INT TERM
if [ ! -e "$policy" ]; then
	made_policy=yes
	printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
	$sudo chmod 755 "$policy"
fi
$sudo mkdir -p "${cluster%/*}"
echo 'create_main_cluster = false' | $sudo tee "$cluster" >/dev/null

install() {
	# shellcheck disable=SC2086 # a list of words
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing >&2
}
# Package lists that are old or absent are the usual reason for a failure: refresh them only then.
install || { $sudo apt-get update -qq >&2 && install; }
