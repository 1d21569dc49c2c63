#!/bin/bash
# Makes a tree the same whoever has built it: takes away what is different each time and needed by nobody.
#   tidy.sh TREE
set -euo pipefail
tree=${1:?a tree}
epoch=${SOURCE_DATE_EPOCH:-0}
: >"$tree/etc/machine-id"
install -d -m 755 "$tree/run" "$tree/dev"
install -d -m 555 "$tree/proc" "$tree/sys"
rm -f "$tree"/etc/{passwd,group,shadow,gshadow,subuid,subgid}- "$tree"/etc/.pwd.lock "$tree"/var/cache/ldconfig/aux-cache
find "$tree/var/log" "$tree/var/cache" "$tree/tmp" "$tree/var/tmp" "$tree/run" -mindepth 1 ! -type d -delete
rm -rf "$tree"/var/log/journal/* "$tree"/tmp/* "$tree"/tmp/.[!.]* "$tree"/var/tmp/* "$tree"/run/* "$tree/lost+found"
# A new user's password is as old as the day; "since when" matters to nobody whose password is locked.
sed -i -E 's/^([^:]*:[!*][^:]*):[0-9]+:/\1:19000:/' "$tree/etc/shadow"
# What systemd would make anew at the first boot, because it finds the tree newer, is as in the tree.
for d in etc var; do
	printf '# Made with the image.\nTIMESTAMP_NSEC=%s000000000\n' "$epoch" >"$tree/$d/.updated"
	chmod 644 "$tree/$d/.updated"
done
