#!/bin/bash
# Makes a bootable raw disk from a tree: GPT, GRUB for BIOS and for UEFI, an ESP, and the root file system (label
# berth-system), without loop devices or mounts. The same tree, epoch and seed make the same bytes.
#
#   disk.sh TREE DISK.raw     TREE is changed: times are set, /boot/grub and fstab are written
#
#   SEED               where the identifiers come from (default: berth)
#   SOURCE_DATE_EPOCH  the time of all that is newer (default 0)
#   ROOT_MB, DISK_MB   sizes of the root file system as made (default: the tree's and 35 %) and of the disk (16384);
#                      at boot the file system grows to the disk's size
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ $# = 2 ] || { sed -n '2,/^set/s/^# \?//p' "$0" >&2; exit 2; }
tree=$1 disk=$2
SEED=${SEED:-berth}
epoch=${SOURCE_DATE_EPOCH:-0}
DISK_MB=${DISK_MB:-16384}
esp_mb=64
root_start_mb=$((2 + esp_mb))

for p in mkfs.ext4 debugfs mkfs.vfat mmd mcopy grub-mkimage sfdisk dumpe2fs e2fsck; do
	command -v "$p" >/dev/null || { echo "disk: $p is missing (make image-deps installs it)" >&2; exit 1; }
done

# uuid makes an identifier of the seed and a name.
uuid() {
	sha256sum <<<"$SEED $1" | sed -E 's/^(.{8})(.{4}).(.{3}).(.{3})(.{12}).*/\1-\2-4\3-8\4-\5/'
}
# put writes bytes, given in hexadecimal, into a file at an offset.
put() {
	local hex=$3 i
	for ((i = 0; i < ${#hex}; i += 2)); do printf '%b' "\\x${hex:i:2}"; done |
		dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# little gives a number as so many bytes in hexadecimal, the low one first.
little() {
	printf "%0$(($2 * 2))x" "$1" | fold -w 2 | tac | tr -d '\n'
}

# bios_code puts GRUB's code for BIOS on the disk, as grub-install does, but with no device: the boot sector loads the
# first sector of core.img, whose end tells where the others are (grub-core/boot/i386/pc: boot.S, diskboot.S). core.img
# is at sector 2048, the beginning of the BIOS boot partition.
bios_code() {
	local sectors
	sectors=$((($(stat -c %s "$work/core") + 511) / 512))
	[ $sectors -le 2048 ] || { echo "disk: GRUB's core.img is larger than its partition" >&2; exit 1; }
	head -c 440 /usr/lib/grub/i386-pc/boot.img >"$work/boot"
	put "$work/boot" $((0x5c)) "$(little 2048 8)" # where core.img is
	put "$work/boot" $((0x64)) ff                 # on the disk that the BIOS booted from
	put "$work/boot" $((0x66)) 9090               # no check for floppies
	put "$work/core" 500 "$(little 2049 8)$(little $((sectors - 1)) 2)2008"
	dd if="$work/boot" of="$disk.new" conv=notrunc status=none
	dd if="$work/core" of="$disk.new" seek=2048 conv=notrunc status=none
}

root_uuid=$(uuid root)
disk_uuid=$(uuid disk)

work=$(mktemp -d "$(dirname "$disk")/.disk-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

mkdir -p "$tree/boot/grub"
sed "s/@ROOT@/$root_uuid/g" "$here/grub.cfg" >"$tree/boot/grub/grub.cfg"
chmod 600 "$tree/boot/grub/grub.cfg"
echo "UUID=$root_uuid / ext4 defaults,x-systemd.growfs 0 1" >"$tree/etc/fstab"
mkdir -p "$tree/usr/lib/repart.d"
printf '# The root partition takes what a larger disk has.\n[Partition]\nType=root-x86-64\n' >"$tree/usr/lib/repart.d/50-root.conf"
chmod 644 "$tree/etc/fstab" "$tree/usr/lib/repart.d/50-root.conf"
for f in vmlinuz initrd.img; do
	[ -e "$tree/$f" ] || { echo "disk: $tree has no /$f" >&2; exit 1; }
done
# The menu offers the kernel before, if there is one.
if [ "$(readlink "$tree/vmlinuz")" = "$(readlink "$tree/vmlinuz.old")" ]; then rm -f "$tree/vmlinuz.old" "$tree/initrd.img.old"; fi
# Nothing is newer than the epoch, and access times say nothing.
find "$tree" -newermt "@$epoch" -exec touch -h -d "@$epoch" {} +
find "$tree" -exec touch -h -a -d "@$epoch" {} +

# Not du, whose answer depends on the file system that the tree is on.
used=$(find "$tree" -printf '%y %s\n' | awk '{b += 4096 * ($1 == "f" ? int($2 / 4096) + 1 : 1)} END {printf "%d", b / 1048576}')
root_mb=${ROOT_MB:-$((used * 135 / 100 + 128))}
truncate -s "${root_mb}M" "$work/root"
export E2FSPROGS_FAKE_TIME=$epoch
# No lazily initialised tables: the first boot would have to write them.
mkfs.ext4 -q -F -b 4096 -I 256 -U "$root_uuid" -L berth-system -m 1 \
	-E "hash_seed=$(uuid hash),lazy_itable_init=0,lazy_journal_init=0,nodiscard" -d "$tree" "$work/root"
# mkfs copies when the tree's files were made on this machine, and when it has read them.
inodes=$(dumpe2fs -h "$work/root" 2>/dev/null | awk '/^Inode count/ {i=$3} /^Free inodes/ {f=$3} END {print i-f}')
seq 1 "$inodes" | awk -v t="@$epoch" '{print "sif <"$1"> atime " t; print "sif <"$1"> ctime " t; print "sif <"$1"> crtime " t}' >"$work/times"
debugfs -w -f "$work/times" "$work/root" >/dev/null 2>"$work/debugfs"
grep -v '^debugfs 1' "$work/debugfs" >&2 || true
e2fsck -fn "$work/root" >"$work/fsck" 2>&1 || { cat "$work/fsck" >&2; exit 1; }

sed "s/@ROOT@/$root_uuid/g" "$here/grub-early.cfg" >"$work/early.cfg"
modules="part_gpt ext2 fat search search_fs_uuid configfile normal linux serial terminal echo test sleep reboot halt minicmd"
# shellcheck disable=SC2086 # a list of words
{
	grub-mkimage -O x86_64-efi -c "$work/early.cfg" -p /boot/grub -o "$work/efi" $modules efi_gop all_video
	grub-mkimage -O i386-pc -c "$work/early.cfg" -p /boot/grub -o "$work/core" biosdisk $modules
}
truncate -s "${esp_mb}M" "$work/esp"
mkfs.vfat -F 32 -n BERTH-ESP --invariant -i "$(uuid esp | cut -c1-8)" "$work/esp" >/dev/null
touch -d "@$epoch" "$work/efi"
mmd -i "$work/esp" ::/EFI ::/EFI/BOOT
mcopy -m -i "$work/esp" "$work/efi" ::/EFI/BOOT/BOOTX64.EFI

rm -f "$disk.new"
truncate -s "${DISK_MB}M" "$disk.new"
sfdisk -q "$disk.new" <<-END
	label: gpt
	label-id: $disk_uuid
	start=1MiB, size=1MiB, type=21686148-6449-6E6F-744E-656564454649, uuid=$(uuid bios), name=bios
	size=${esp_mb}MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, uuid=$(uuid esp-part), name=esp
	size=${root_mb}MiB, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, uuid=$(uuid root-part), name=berth-system
END
dd if="$work/esp" of="$disk.new" bs=1M seek=2 conv=notrunc,sparse status=none
dd if="$work/root" of="$disk.new" bs=1M seek=$root_start_mb conv=notrunc,sparse status=none
bios_code
mv "$disk.new" "$disk"
