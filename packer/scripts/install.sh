#!/bin/bash
# Inside the machine that is built: unpacks the payload and installs Berth with the script that is used everywhere.
set -euo pipefail
mkdir -p /root/payload
tar -C /root/payload --no-same-owner -xf /root/payload.tar
/root/payload/appliance/install.sh / /root/payload/bin
# What the machine is made of, for whoever asks inside it: the bill of materials and the licences.
mkdir -p /usr/share/doc/berth
cp -r --no-preserve=ownership /root/payload/doc/. /usr/share/doc/berth/
chmod -R u=rwX,go=rX /usr/share/doc/berth
