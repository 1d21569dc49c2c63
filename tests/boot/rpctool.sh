#!/bin/sh
# Stands in for VMware's vmware-rpctool: guestinfo's variables are files, which the test reads and writes from outside.
set -eu
set -f
case $1 in
"info-get "*)
	key=${1#info-get }
	if [ ! -e "/run/guestinfo/$key" ]; then
		echo "No value found" >&2
		exit 1
	fi
	cat "/run/guestinfo/$key"
	;;
"info-set "*)
	rest=${1#info-set }
	key=${rest%% *}
	printf '%s' "${rest#* }" >"/run/guestinfo/.$key"
	mv "/run/guestinfo/.$key" "/run/guestinfo/$key"
	;;
*)
	echo "unknown command" >&2
	exit 1
	;;
esac
