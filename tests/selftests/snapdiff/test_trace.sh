#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: debian-6.12
# smp: 1
# timeout: 300
#
# What the kernel's own tracing sees of the write path, on a stock kernel:
#
#   no lock is taken on the way of a write that needs no copy, nor of a read (the module's functions, and the kernel's locks, below the target's map and end_io, and
#   below what the end of the submitter's plug calls);
#   the same look at first writes does find one: it can see them
#   a read of a generation takes at most one spin lock below snap_virt_read(), be the chunk unchanged or copied: that of its own completion; no mutex. What the devices' own way of a bio takes is not looked at. (Records that are in runs already come through dm-bufio, which has locks of its own: not looked at either.)
#   the reads and writes of a copy carry the I/O priority of the write that they are made for
#
# One CPU: the kernel patches its text for this, which QEMU's emulation of several does not always survive.
# Planted and found: a spin lock around the bit test in map_change() (the case of rewrites: 256 locks in 256 writes); no bi_ioprio in
# on_behalf_of() (the case of reads: 0 of 10); the store's mutex around the lookup in snap_view_lookup() (both cases of generations).

. tests/selftests/snapdiff/lib.sh
tr=/sys/kernel/tracing

skip_all()
{
	echo "1..0 # SKIP $1"
	exit 4
}

below="snapdiff_map snapdiff_end_io unplug" counted=snapdiff_map other= disk=/dev/mapper/v

# fio ARG...: 256 writes or reads of 4 KiB by one task on one CPU
io()
{
	fio --name=x --filename=$disk --ioengine=libaio --direct=1 --bs=4k --iodepth=8 --thread --norandommap=0 "$@" >/dev/null
}

# What is called below the functions $below while io ARG... runs, but not below $other; "LOCKS CALLS SLEEPING", calls of $counted, locks but for those of interrupts that
# happened to come; sleeping ones (mutexes, semaphores) are counted as locks, too.
traced()
{
	echo 0 >$tr/tracing_on
	printf '%s\n' ':mod:snapdiff' '_raw_spin_*' '_raw_read_*' '_raw_write_*' 'mutex_*' '__mutex_*' 'down_*' 'rt_mutex_*' \
		'submit_bio_noacct' 'blk_finish_plug' '__blk_flush_plug' 'wait_for_completion*' 'sysvec_*' 'irq_*' 'handle_softirqs' '__do_softirq' '__schedule' 'schedule' 'preempt_schedule*' 'rcu_read_unlock_special' |
		while read -r f; do echo "$f" >>$tr/set_ftrace_filter; done 2>/dev/null
	echo "$below" | tr ' ' '\n' >$tr/set_graph_function || return 1
	echo function_graph >$tr/current_tracer
	echo 0 >$tr/options/funcgraph-irqs
	echo 16384 >$tr/buffer_size_kb
	: >$tr/trace
	echo 1 >$tr/tracing_on
	io "$@"
	echo 0 >$tr/tracing_on
	python3 - $tr/trace "$below" "$counted" "$other" <<'END'
import re, sys
LOCK = re.compile(r'^(_raw_(spin|read|write)_|mutex_|__mutex|down_|native_queued|rt_mutex|ww_mutex|__raw_spin)')
ELSE = re.compile(r'^(sysvec_|asm_|irq_|__irq|handle_softirqs|__do_softirq|do_softirq|__schedule|schedule|preempt_schedule|rcu_read_unlock_special|__sysvec)')
below, counted, other = sys.argv[2].split(), sys.argv[3], sys.argv[4].split()
SLEEPING = re.compile(r'^(mutex_lock|__mutex_lock|down_)')
stack, locks, calls = [], {}, 0
for line in open(sys.argv[1], errors='replace'):
    m = re.match(r'^\s*\d+\)[^|]*\|\s*(.*)$', line)
    if not m:
        continue
    text = m.group(1)
    if text.startswith('}'):
        if stack:
            stack.pop()
        continue
    m = re.match(r'^(\w[\w.]*)(?: \[\w+\])?\(\)', text)
    if not m:
        continue
    name = m.group(1)
    if name in below:
        stack = []
        calls += name == counted
    if not any(ELSE.match(s) or s in other for s in stack + [name]) and LOCK.match(name) and 'unlock' not in name:
        locks[name] = locks.get(name, 0) + 1
    if text.endswith('{'):
        stack.append(name)
print(sum(locks.values()), calls, sum(n for k, n in locks.items() if SLEEPING.match(k)), locks)
END
	echo nop >$tr/current_tracer
}

lockless()
{
	local locks calls

	out=$(traced "$@") || return 1
	read -r locks calls _ <<<"$out"
	[ "$calls" -ge 256 ] && [ "$locks" -eq 0 ]
}

locks_seen()
{
	local locks calls

	out=$(traced "$@") || return 1
	read -r locks calls _ <<<"$out"
	[ "$calls" -ge 256 ] && [ "$locks" -gt 0 ]
}

# of_generation ARG...: reads of /dev/snapvirt0
of_generation()
{
	local below=snap_virt_read counted=snap_virt_read other="submit_bio_noacct blk_finish_plug __blk_flush_plug wait_for_completion_io"
	local disk=/dev/snapvirt0 locks calls sleeping

	out=$(traced "$@") || return 1
	read -r locks calls sleeping _ <<<"$out"
	echo "# $out"
	[ "$calls" -ge 256 ] && [ "$sleeping" -eq 0 ] && [ "$locks" -le $((calls + calls / 4)) ]
}

# issued DEVICE READ|WRITE PRIO: requests with that priority in the trace, and all of that direction
issued()
{
	local dev

	dev=$(tr : , <"/sys/block/$1/dev")
	grep 'block_rq_issue:' $tr/trace | grep -F " $dev $2" | awk -v p=" $3 " '{ n++ } index($0, p) { k++ } END { print k + 0, n + 0 }'
}

first_writes_at()
{
	: >$tr/trace
	echo 1 >$tr/events/block/block_rq_issue/enable
	echo 1 >$tr/tracing_on
	io --rw=randwrite --size=64k "$@"
	echo 0 >$tr/tracing_on
	echo 0 >$tr/events/block/block_rq_issue/enable
}

all_of()
{
	local k n

	out=$(issued "$@")
	read -r k n <<<"$out"
	[ "$n" -gt 0 ] && [ "$k" -eq "$n" ]
}

none_of()
{
	local k n

	out=$(issued "$@")
	read -r k n <<<"$out"
	[ "$n" -gt 0 ] && [ "$k" -eq 0 ]
}

[ -d $tr/events ] || mount -t tracefs none $tr 2>/dev/null || skip_all "no tracefs"
grep -q function_graph $tr/available_tracers || skip_all "no function graph tracer"
need null_disk tracep 16 queue_mode=2
need null_disk traced 64 queue_mode=2
dd if=/dev/urandom of=/dev/tracep bs=1M count=16 oflag=direct status=none
need works attach v /dev/tracep /dev/traced --format
ok "no generation: no lock" lockless --rw=randwrite --size=1M
need works create v
ok "first writes take one, and it is seen" locks_seen --rw=randwrite --size=1M
ok "rewrites of what is preserved: no lock" lockless --rw=randwrite --size=1M
ok "reads: no lock" lockless --rw=randread --size=1M
need works activate v@1
ok "reads of a generation, unchanged: no mutex, no lock but its own" of_generation --rw=randread --size=1M --offset=12M
ok "reads of a generation, copied: no more" of_generation --rw=randread --size=1M
need works deactivate v@1
first_writes_at --offset=4M --prioclass=1 --prio=3
ok "old content is read at the priority of the write" all_of tracep R rt,0,3
ok "and preserved at it" all_of traced W rt,0,3
first_writes_at --offset=8M
ok "no priority, none for the copy" none_of traced W rt,0,3
ok "detach" works detach v
finish
