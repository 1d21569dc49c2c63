#!/bin/bash
# Inside the machine that is built, last: takes away what belongs to the build, and what two machines must not share.
set -euo pipefail
rm -rf /root/payload /root/payload.tar /root/.ssh /root/.bash_history /root/.cache
rm -f /etc/ssh/ssh_host_* /etc/systemd/network/00-build.network
: >/etc/machine-id
echo berth >/etc/hostname
printf '127.0.0.1\tlocalhost\n::1\t\tlocalhost\n' >/etc/hosts
rm -f /var/lib/dbus/machine-id /var/lib/systemd/random-seed /var/lib/systemd/credential.secret /boot/efi/loader/random-seed
rm -rf /var/lib/systemd/timesync /var/lib/systemd/timers /var/lib/systemd/linger /var/lib/systemd/rfkill /var/lib/systemd/coredump/* \
	/var/lib/dhcp/* /var/lib/private/systemd /var/lib/cloud
rm -rf /var/lib/apt/lists/* /var/cache/apt/archives /var/cache/apt/*.bin /var/cache/debconf/*-old /var/cache/tdnf /var/cache/ldconfig/aux-cache
rm -rf /tmp/* /tmp/.[!.]* /var/tmp/*
systemctl stop systemd-journald.socket systemd-journald-dev-log.socket systemd-journald-audit.socket systemd-journald.service 2>/dev/null || true
find /var/log -type f -delete
rm -rf /var/log/journal/*
[ ! -s /root/.ssh/authorized_keys ]
sync
