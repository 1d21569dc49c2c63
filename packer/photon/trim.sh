#!/bin/bash
# Inside the machine that is built: what was deleted, such as the build's key, is not only free but gone.
set -euo pipefail
sed -i -E 's/^PermitRootLogin .*/PermitRootLogin no/' /etc/ssh/sshd_config
rm -f /etc/machine-id.* /zero
fstrim -a || true
# Not every disk forgets what is trimmed.
dd if=/dev/zero of=/zero bs=1M status=none || true
rm -f /zero
sync
