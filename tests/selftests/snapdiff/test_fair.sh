#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1
# mem: 2G
# timeout: 120
#
# Who has queued a great many first writes is not in the way of who writes one block and waits for it, and the copies are charged to who caused them.
#
# The flood is 96 MiB through the page cache, submitted while the diff is suspended: all but what may be in flight (4096 chunks) waits in the
# copy path. Then the lone write comes, then the diff goes on. What of the flood is still under way when the lone write is complete tells how many went
# before it: with one queue for all there would be nothing left. Planted: every bio in one flow: 0 KiB left (of 98304; with flows 80388), the first
# case fails; without bio_clone_blkg_association() in copy.c the third does.

. tests/selftests/snapdiff/lib.sh
flood=96

diff_on_linear()
{
	null_disk fairp 128 && null_disk faird 192 || return 1
	dd if=/dev/urandom of=/dev/fairp bs=1M count=128 oflag=direct status=none
	dmsetup create slow --table "0 $(blockdev --getsz /dev/faird) linear /dev/faird 0"
}

writeback_kib()
{
	awk '/^Writeback:/ { print $2 }' /proc/meminfo
}

queued()
{
	local want=$1

	for _ in $(seq 600); do
		[ "$(writeback_kib)" -ge "$want" ] && return
		sleep 0.1
	done
	out="$(writeback_kib) KiB"
	return 1
}

deferred_more_than()
{
	for _ in $(seq 300); do
		[ "$(stat_of v writes_deferred)" -gt "$1" ] && return
		sleep 0.1
	done
	return 1
}

# Writes one block and says what of the flood is under way when that is complete: no other program has to start in between.
lone()
{
	exec python3 -c '
import mmap, os
m = mmap.mmap(-1, 4096)
m.write(os.urandom(4096))
fd = os.open("/dev/mapper/v", os.O_WRONLY | os.O_DIRECT)
os.pwrite(fd, m, 127 << 20)
print([l.split()[1] for l in open("/proc/meminfo") if l.startswith("Writeback:")][0])'
}

overtakes()
{
	local pid before left

	dmsetup suspend --nolockfs slow
	dd if=/dev/urandom of=/dev/mapper/v bs=1M count=$flood conv=notrunc,fsync status=none &
	pid=$!
	queued $((flood * 1024 - 1024)) || return 1
	before=$(stat_of v writes_deferred)
	lone >/tmp/left &
	if deferred_more_than "$before"; then
		dmsetup resume slow
	else
		out="the lone write has not come"
		dmsetup resume slow
		return 1
	fi
	wait
	left=$(cat /tmp/left)
	out="$left of $((flood * 1024)) KiB of the flood were left"
	echo "# $out"
	[ "$left" -ge $((flood * 1024 / 4)) ]
}

# io_of GROUP DEVICE KEY: of a cgroup's io.stat
io_of()
{
	awk -v d="$(cat "/sys/block/$2/dev")" -v k="$3" '$1 == d { for (i = 2; i <= NF; i++) if (split($i, a, "=") && a[1] == k) print a[2] }' \
		"/tmp/cg/$1/io.stat"
}

in_group()
{
	mkdir -p "/tmp/cg/$1" && bash -c 'echo $$ >/tmp/cg/'"$1"'/cgroup.procs; exec "${@}"' - "${@:2}"
}

set_up_groups()
{
	mkdir -p /tmp/cg && mount -t cgroup2 none /tmp/cg && echo +io >/tmp/cg/cgroup.subtree_control
}

# 64 first writes by a cgroup: it is charged with the reads of the old content and with its writes.
charged()
{
	in_group a fio --name=x --filename=/dev/mapper/v --ioengine=libaio --direct=1 --rw=randwrite --bs=4k --size=256k --offset=100M --iodepth=8 --thread >/dev/null
	out="reads $(io_of a fairp rios), $(io_of a fairp rbytes) bytes; writes $(io_of a fairp wios)"
	[ "$(io_of a fairp rbytes)" = 262144 ] && [ "$(io_of a fairp wbytes)" = 262144 ]
}

# The same blocks once more: no copies, no reads.
not_charged_again()
{
	in_group b fio --name=x --filename=/dev/mapper/v --ioengine=libaio --direct=1 --rw=randwrite --bs=4k --size=256k --offset=100M --iodepth=8 --thread >/dev/null
	out="$(cat /tmp/cg/b/io.stat)"
	[ "$(io_of b fairp wbytes)" = 262144 ] && [ "$(io_of b fairp rbytes)" = 0 ]
}

need diff_on_linear
need works attach v /dev/fairp /dev/mapper/slow --format
need works create v
ok "a lone write does not wait for a flood that came before it" overtakes
ok "everything was preserved" equal "$(stat_of v chunks_copied)" $((flood * 256 + 1))
need set_up_groups
ok "a cgroup is charged with reading what it overwrites" charged
ok "and not when it is preserved already" not_charged_again
ok "detach" works detach v
finish
