#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1
# mem: 1500M
# timeout: 600
#
# Power cuts: primary and diff lie on one device whose writes and flushes dm-log-writes records, while fio writes, generations are cut and
# deleted. What the log would have left at many points of it, with unflushed writes there or lost, is judged by tests/tools/logreplay.c; at some of them
# the module attaches it.
#
# Shown to fail: data that is written after the flush of its group instead of before: "generation 1 is not what was read when it was cut".
#
# ROUNDS=N POINTS=N SEED=N: more of it.

. "${BASH_SOURCE%/*}/lib.sh"

rounds=${ROUNDS:-12} points=${POINTS:-120} seed=${SEED:-$((RANDOM * 32768 + RANDOM))}
PS=8 DS=40			# MiB
half=$((PS << 19))
keep=5
live=() failures=0 last=0

mark() { dmsetup message logged 0 mark "$1"; }

slices()			# DEVICE: p and d, as linear devices
{
	dmsetup create p --table "0 $((PS * 2048)) linear $1 0" &&
		dmsetup create d --table "0 $((DS * 2048)) linear $1 $((PS * 2048))"
}

set_up()
{
	null_disk base $((PS + DS)) && null_disk log 400 && null_disk again $((PS + DS)) || return 1
	dmsetup create logged --table "0 $(((PS + DS) * 2048)) log-writes /dev/base /dev/log" || return 1
	slices /dev/mapper/logged || return 1
	dd if=/dev/urandom of=/dev/mapper/p bs=1M count=$PS oflag=direct,sync status=none
	works attach v /dev/mapper/p /dev/mapper/d --format
}

writer()			# RUNTIME-OR-SIZE OPTION...
{
	exec fio --name=w --filename=/dev/mapper/v --ioengine=libaio --rw=randwrite --direct=1 --thread --serialize_overlap=1 \
		--randrepeat=0 --randseed=$RANDOM "$@" >/tmp/fio.out 2>&1
}

# One write at a time: its copy and its record go through the cache (FUA), side by side, without a flush behind them. The background thread may
# write in between: not each time.
lone_writes()
{
	local i

	mark "C:1:$(logreplay sum /dev/mapper/v 0 $half)"
	for i in 1 2 3 4 5; do
		mark L
		dd if=/dev/urandom of=/dev/mapper/v bs=4k count=1 seek=$((half / 4096 + i)) oflag=direct conv=notrunc status=none || return 1
	done
	mark L
}

without_flush()
{
	logreplay list /dev/log $((PS << 20)) | awk '
		$2 == "mark" && $3 == "L" { lone += seen && fua == 2 && !flush; seen = 1; fua = flush = 0; next }
		$2 == "mark" { seen = 0 }
		/ flush/ { flush++ }
		$2 == "diff" && $4 == "fua" { fua++ }
		END { printf "%d of 5 lone writes: two writes through the cache of the diff, no flush\n", lone; exit lone < 3 }'
}

one_round()
{
	local gen dev h

	(writer --size=$half --io_size=$((RANDOM % 600 + 100))k --bsrange=4k-16k --iodepth=8 --fsync=$((RANDOM % 30 + 5)) --end_fsync=1) || return 1
	h=$(logreplay sum /dev/mapper/v 0 $half)
	mark "W:$h"
	works create v || return 1
	gen=$((++last))
	live+=("$gen")
	mark "C:$gen:$h"
	dev=$(snapctl activate "v@$gen") || return 1
	mark "S:$gen:$(logreplay sum "$dev")"
	wait_for snapctl deactivate "$dev" 2>/dev/null || return 1
	[ ${#live[@]} -gt $keep ] || return 0
	gen=${live[RANDOM % ${#live[@]}]}
	mark "D:$gen"
	works delete "v@$gen" || return 1
	mark "d:$gen"
	live=($(printf '%s\n' "${live[@]}" | grep -vx "$gen"))
}

load()
{
	local i bg

	for ((i = 0; i < rounds; i++)); do
		# While the first half is written, cut, read: as many writes in every run, however slow the machine.
		writer --offset=$half --size=$half --io_size=$((RANDOM % 1500 + 500))k --bs=4k --iodepth=4 --fsync=50 --rate_iops=1000 &
		bg=$!
		one_round || failures=$((failures + 1))
		wait $bg || failures=$((failures + 1))
	done
	[ $failures -eq 0 ]
}

judged()
{
	quiet logreplay check /dev/log $((PS << 20)) $((DS << 20)) "$points" "$seed"
}

# The module, at one point: what must be there is there.
attached_at()
{
	local n=$1 gen h all dev r=0

	dd if=/dev/zero of=/dev/again bs=1M count=$((PS + DS)) oflag=direct status=none
	quiet logreplay write /dev/log "$n" /dev/again && slices /dev/again && works attach v /dev/mapper/p /dev/mapper/d || return 1
	while read -r gen h all; do
		dev=$(snapctl activate "v@$gen") && [ "$(logreplay sum "$dev")" = "$all" ] || { out="generation $gen at $n"; r=1; }
		wait_for snapctl deactivate "$dev" 2>/dev/null
	done < <(logreplay expect /dev/log "$n")
	works detach v || r=1
	works_meta check /dev/mapper/d || r=1
	dmsetup remove p && dmsetup remove d
	return $r
}

works_meta() { quiet snapmeta "$@"; }

echo "# SEED=$seed"
RANDOM=$((seed % 32768))
need set_up
mark A
need works create v
last=1
live=(1)
ok "writes one at a time" lone_writes
ok "fio, cuts and deletes" load
need wait_for works detach v
dmsetup remove p
dmsetup remove d
dmsetup remove logged
ok "after every power cut, what was acknowledged is there" judged
echo "# $out"
logreplay points /dev/log >/tmp/points
ok "a write alone costs no flush of the diff" quiet without_flush
echo "# $out"
total=$(tail -n 1 /tmp/points | cut -d' ' -f1)
first=$(grep ' A$' /tmp/points | cut -d' ' -f1)
for i in 1 2 3; do
	at=$((first + (total - first) * i / 4 + RANDOM % 50))
	ok "the module attaches what is left at entry $at" attached_at $at
done
ok "generations were expected" test "$(logreplay expect /dev/log "$at" | wc -l)" -gt 1
finish
