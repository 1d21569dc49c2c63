#!/bin/bash
# The power supply, the disks and the network of one machine under test. It runs in namespaces of its own (mounts, network,
# processes): when it is killed, all that it has made is gone at once, with whatever state that leaves on the disks.
#
#   keeper.sh DIR TREE LAYER NAME NET4 NET6 MAC DHCP [FILE:ROLE...]
#
# DIR holds the disks' files. NET4 and NET6 are the network's first three bytes and its prefix of 64 bits. The machine
# is at the other end of a cable whose near end is in this script's own network, where clients run.
set -euo pipefail
dir=$1 tree=$2 layer=$3 name=$4 net4=$5 net6=$6 mac=$7 dhcp=$8
shift 8

# Control groups of its own, since two systemds would take each other's processes for theirs.
for h in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
	[ -e "$h/cgroup.procs" ] || continue
	mkdir -p "$h/$name"
	echo 0 >"$h/$name/cgroup.procs"
done

mount -t tmpfs -o mode=755 tmpfs /run

# The system disk: what changes of the tree is on a file system of its own, and can lose its power, too.
mkdir -p "$dir/system" "$dir/root"
mount -o loop "$dir/system.img" "$dir/system"
mkdir -p "$dir/system/upper" "$dir/system/work"
mount -t overlay -o "lowerdir=$layer:$tree,upperdir=$dir/system/upper,workdir=$dir/system/work" overlay "$dir/root"

binds=()
number=20
for disk in "$@"; do
	device=$(losetup -f --show "${disk%:*}")
	# The kernel detaches it when nobody has it open any more, however we end.
	eval "exec $number<\"$device\""
	losetup -d "$device"
	number=$((number + 1))
	echo "$device" >"${disk%:*}.device"
	binds+=("--bind=$device")
done

mkdir -p /run/netns
ip link set lo up
ip netns add machine
ip link add cable type veth peer name host0 netns machine
ip -n machine link set host0 address "$mac"
ip addr add "$net4.1/24" dev cable
ip addr add "$net6::1/64" dev cable nodad
ip link set cable up

if [ "$dhcp" = yes ]; then
	dnsmasq --keep-in-foreground --conf-file=/dev/null --no-hosts --no-resolv --user=root --pid-file --log-facility="$dir/dnsmasq.log" \
		--interface=cable --bind-dynamic --domain=berth.test --dhcp-leasefile=/run/leases --dhcp-authoritative \
		--dhcp-range="$net4.10,$net4.50,255.255.255.0,1h" --dhcp-host="$mac,$net4.10" \
		--dhcp-option="option:router,$net4.1" --dhcp-option="option:ntp-server,$net4.1" \
		--enable-ra --dhcp-range="$net6::,ra-only" --host-record="berth.berth.test,$net4.10" &
fi

echo on >"$dir/power"
while :; do
	code=0
	systemd-nspawn --quiet --boot --directory="$dir/root" --machine="$name" --register=no --keep-unit \
		--network-namespace-path=/run/netns/machine --capability=CAP_NET_ADMIN --resolv-conf=off --timezone=off --link-journal=no \
		--bind="$dir/guestinfo:/run/guestinfo" "${binds[@]}" </dev/null || code=$?
	[ "$code" = 133 ] || break # it asks to be started again
	echo "--- reboot ---"
done
exit "$code"
