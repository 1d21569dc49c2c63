#!/bin/bash
# Inside the machine that is built: writes the tree as a tar archive onto the second disk. The OVA's file system is made
# anew of it (disk.sh), so that nothing is left of what was deleted here, such as the build's key.
set -euo pipefail
cd /
# tar's status 1 says that a file has changed meanwhile: a log of the running system's, which tidy.sh takes away.
tar --one-file-system --numeric-owner --xattrs --acls --sort=name --format=posix \
	--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime \
	--exclude='./tmp/*' --exclude='./var/tmp/*' --exclude=./lost+found --exclude='./var/log/journal/*' \
	--exclude=./root/.ssh --exclude='./etc/ssh/ssh_host_*' --exclude=./var/lib/systemd/random-seed \
	--exclude='./var/lib/systemd/timesync' --exclude=./var/lib/private/systemd \
	--exclude=./proc --exclude=./sys --exclude=./dev --exclude=./run -cf /dev/vdb . || [ $? = 1 ]
sync
