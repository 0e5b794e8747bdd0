#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1
# mem: 1G
# timeout: 240
#
# Kernel memory stays below --cache-size while writes go all over a volume far larger than that. The primary is a dm-zero of 4 TiB: each first write is a
# record, none has data.

. "${BASH_SOURCE%/*}/lib.sh"

# watch WRITES: the most that status has shown, in KiB, while fio ran
watch()
{
	local now
	most=0
	fio --name=r --filename=/dev/mapper/v --ioengine=libaio --iodepth=64 --direct=1 --rw=randwrite --bs=4k --size=4T --number_ios="$1" \
		--norandommap --randrepeat=0 --randseed="$1" >/dev/null 2>&1 &
	while kill -0 $! 2>/dev/null; do
		now=$(dmsetup status v | awk '{ split($(NF - 1), m, "/"); print m[1] }')
		[ "${now:-0}" -gt $most ] && most=$now
		sleep 0.05
	done
	wait $!
}

null_disk vd 1024 || exit 1
dmsetup create big --table "0 $((4 << 31)) zero"
works attach v /dev/mapper/big /dev/vd --format --cache-size 4M
ok "the bound is in the table" eval '[[ $(dmsetup table v) == *" 2 cache_size 4" ]]'
ok "and in status" equal "$(stat_of v memory_max)" $((4 << 20))
works create v --no-freeze
watch 180000
echo "# $most KiB at most, $(stat_of v chunks_zero) records, $(stat_of v checkpoints) checkpoints, $(stat_of v merges) merge slices"
ok "180000 first writes all over 4 TiB" test "$(stat_of v chunks_zero)" -gt 178000
ok "more than the tables hold" test "$(stat_of v checkpoints)" -gt 1
ok "the memory was below the bound" test $most -le 4096
ok "and was used" test $most -gt 1024
ok "a map of everything" quiet snapctl map v@1 --json
ok "below it after reading the table, too" test "$(stat_of v memory)" -le $((4 << 20))
cached=$(cat /sys/module/dm_bufio/parameters/current_allocated_bytes)
echo "# dm-bufio has $cached bytes"
ok "the kernel counts the same: less than a quarter is cached blocks" test "$cached" -le $((1 << 20))
ok "which is not all of the table" test "$cached" -gt $((800 << 10))
works detach v
# With more of it the same work takes more: the figure is one.
works attach v /dev/mapper/big /dev/vd --cache-size 64M
works create v --no-freeze
watch 12000
echo "# $most KiB at most"
ok "with 64 MiB it is more" test $most -gt 8192
ok "and below these" test $most -le 65536
works detach v
dmsetup remove --retry big
finish
