#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1
# disks: 96M 192M 96M 256M
# mem: 112M
# timeout: 240
#
# Little memory: swap on a volume with a generation and more in use than there is memory; a filesystem on another one, written by a process that may
# keep 24 MiB. All of it has to end, every byte has to be right, and no generation may be lost.

. "${BASH_SOURCE%/*}/lib.sh"

# hog MIB: that much memory, each page with a content of its own, written and then compared
hog()
{
	quiet python3 - "$1" <<-'END'
	import sys
	pages = int(sys.argv[1]) * 256
	mem = bytearray(pages * 4096)
	for turn in range(1):
	    for i in range(pages):
	        mem[i * 4096:i * 4096 + 16] = b'%07d %07d ' % (turn, i)
	    for i in range(pages):
	        if mem[i * 4096:i * 4096 + 16] != b'%07d %07d ' % (turn, i):
	            sys.exit('page %d of turn %d is wrong' % (i, turn))
	END
}

live() { out=$(snapctl list "$1" -n -o state | sort -u); [ "$out" = live ]; }
swapped() { awk '$1 == "pswpout" { exit $2 < 2000 }' /proc/vmstat; }

need works attach v "$DISK1" "$DISK2" --format
dd if=/dev/urandom of=/dev/mapper/v bs=1M count=96 oflag=direct status=none
need mkswap -q /dev/mapper/v
before=$(sum /dev/mapper/v)
need swapon /dev/mapper/v
need works create v
more=$(awk '/^MemAvailable/ { print int($2 / 1024) + 28 }' /proc/meminfo)
ok "more memory in use than there is, swap on a volume" hog "$more"
ok "it was swapped" swapped
echo "# $(awk '/^pswp/ { printf "%s %s ", $1, $2 }' /proc/vmstat), copied $(stat_of v chunks_copied)"
ok "and old content was copied" test "$(stat_of v chunks_copied)" -gt 1000
ok "swapoff" quiet swapoff /dev/mapper/v
ok "no generation is lost" live v
ok "the generation is what was there before the swap" generation v@1 "$before"
ok "detach" works detach v

need works attach w "$DISK3" "$DISK4" --format
need mkfs.ext4 -q /dev/mapper/w
mkdir -p /tmp/fs /tmp/cg
need mount /dev/mapper/w /tmp/fs
need mount -t cgroup2 none /tmp/cg
echo +memory >/tmp/cg/cgroup.subtree_control
mkdir /tmp/cg/small
echo 24M >/tmp/cg/small/memory.max
dd if=/dev/urandom of=/tmp/fs/a bs=1M count=40 status=none
sync
need works create w
dev=$(snapctl activate w@1)
frozen=$(sum "$dev")
works deactivate "$dev"
confined() { (echo $BASHPID >/tmp/cg/small/cgroup.procs && exec "$@"); }
fill() { confined dd if=/tmp/fs/a of=/tmp/fs/a bs=256k count=160 conv=notrunc,fsync iflag=fullblock status=none; }
pattern=$(sum /tmp/fs/a)
ok "dirty pages of a process with little memory" quiet fill
write_new() { confined dd if=/dev/urandom of=/tmp/fs/b bs=1M count=36 conv=fsync status=none; }
ok "and a new file" quiet write_new
ok "and over the old one" confined dd if=/tmp/fs/b of=/tmp/fs/a bs=1M conv=notrunc,fsync status=none
ok "the limit was felt" test "$(awk '$1 == "max" { print $2 }' /tmp/cg/small/memory.events)" -gt 0
echo 3 >/proc/sys/vm/drop_caches
ok "the file is right" cmp -n $((36 << 20)) /tmp/fs/a /tmp/fs/b
umount /tmp/fs
ok "no generation is lost" live w
ok "the generation is right" generation w@1 "$frozen"
mkdir -p /tmp/gen
dev=$(snapctl activate w@1)
ok "and has the old file" mount -o ro "$dev" /tmp/gen
ok "with its content" equal "$(sum /tmp/gen/a)" "$pattern"
umount /tmp/gen
rmdir /tmp/cg/small
ok "detach" works detach w
finish
