#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1 uml-6.12-debug
# mem: 2G
# timeout: 600
#
# The dm target and the write path: tables, status, shapes of I/O, discards, errors of either device, what survives.

. "${BASH_SOURCE%/*}/lib.sh"

P=/dev/tp D=/dev/td V=/dev/mapper/t

sectors() { blockdev --getsz "$1"; }

# attach_line LINE...: the device t with this table
attach_line() { quiet dmsetup create t --table "$*"; }

# refuses TEXT LINE...: the table is refused, and the kernel says why
refuses()
{
	local text=$1 before

	shift
	before=$(dmesg | grep -c "$text")
	! attach_line "$*" || { dmsetup remove t; out="accepted"; return 1; }
	out=$(dmesg | tail -n 3)
	[ "$(dmesg | grep -c "$text")" -gt "$before" ]
}

# field N: of the status line, behind "snapdiff"; the state is always the last one
field() { dmsetup status t | awk -v n="$1" '{ print $(3 + n) }'; }
state() { dmsetup status t | awk '{ print $NF }'; }

# The positional fields, named in Documentation/admin-guide/device-mapper/snapdiff.rst
status_parses()
{
	out=$(dmsetup status t)
	[[ $out =~ ^0\ [0-9]+\ snapdiff\ [0-9]+/[0-9]+\ [0-9]+\ [0-9]+\ [0-9]+\ [0-9]+\ [0-9]+\ [a-z-]+\ [0-9]+\ [0-9]+\ [0-9]+\ [0-9]+/[0-9]+\ (rw|failed)$ ]]
}

round_trip()
{
	local line

	line=$(dmsetup table t)
	echo "$line" | dmsetup load t && dmsetup suspend t && dmsetup resume t || return 1
	equal "$(dmsetup table t)" "$line"
}

fresh()
{
	snapctl format $D --force "$@" >/dev/null && attach_line "0 $(sectors $P) snapdiff $P $D"
}

gone() { quiet dmsetup remove --retry t; }

fill() { dd if=/dev/urandom of=$V bs=1M oflag=direct conv=fsync 2>/dev/null; sync; }

# shapes BS...: fio writes and verifies with direct I/O of that size at random places; the generation stays what it was
shapes()
{
	quiet fio --name=s --filename=$V --ioengine=libaio --iodepth=16 --direct=1 --rw=randwrite --bsrange="$1" --blockalign=512 \
		--size=100% --io_size=6m --verify=crc32c --verify_fatal=1 --do_verify=1 --randseed=7 --verify_state_save=0
}

null_disk tp 8 && null_disk td 40 || exit 1

# ---- tables ----

ok "too few arguments are refused" refuses "want: PRIMARY DIFF" "0 $(sectors $P) snapdiff $P"
ok "a differential volume that was never formatted is refused" refuses "is not formatted" "0 $(sectors $P) snapdiff $P $D"
snapctl format $D >/dev/null
ok "primary = diff is refused" refuses "overlaps with it" "0 $(sectors $P) snapdiff $P $P"
ok "a wrong length is refused" refuses "length: is not the size of PRIMARY" "0 $(($(sectors $P) - 8)) snapdiff $P $D"
ok "a device that is not there is refused" refuses "PRIMARY: cannot be opened" "0 8 snapdiff /dev/nothing $D"
ok "an unknown feature is refused" refuses "unknown feature" "0 $(sectors $P) snapdiff $P $D 1 colour"
ok "an unknown policy is refused" refuses "on_full: want" "0 $(sectors $P) snapdiff $P $D 2 on_full maybe"
ok "a feature without its value is refused" refuses "mem_records: want" "0 $(sectors $P) snapdiff $P $D 1 mem_records"
ok "too small a cache is refused" refuses "cache_size: want" "0 $(sectors $P) snapdiff $P $D 2 cache_size 3"
ok "arguments behind the features are refused" refuses "more arguments than" "0 $(sectors $P) snapdiff $P $D 0 on_full"
ok "a plain table" attach_line "0 $(sectors $P) snapdiff $P $D"
ok "its status parses" status_parses
ok "its line can be loaded again" round_trip
ok "a device in use by a volume is refused" eval '! out=$(dmsetup create t2 --table "0 $(sectors $P) snapdiff $P $D" 2>&1) && dmesg | grep -q "is used by another snapdiff volume"'
ok "it goes" gone
ok "a table with features" attach_line "0 $(sectors $P) snapdiff $P $D 6 on_full drop-all cache_size 8 mem_records 4096"
ok "the features are in the line" eval 'out=$(dmsetup table t); [[ $out == *" 6 on_full drop-all mem_records 4096 cache_size 8" ]]'
ok "that line can be loaded again" round_trip
ok "the policy is in the status" equal "$(field 7)" drop-all
gone

# ---- shapes ----

for chunk in 4k 64k 1M; do
	fresh --chunk $chunk || exit 1
	fill
	before=$(sum $V)
	snapctl create t --no-freeze >/dev/null
	ok "chunks of $chunk: writes of 512 bytes to 16 KiB" shapes 512-16k
	ok "chunks of $chunk: writes of up to 1 MiB" shapes 512-1m
	ok "chunks of $chunk: the generation is what it was" generation t@1 "$before"
	copied=$(field 8)
	most=$(($(sectors $P) / $(field 2)))
	ok "chunks of $chunk: no chunk was copied twice" eval 'out="$copied of $most"; [ "$copied" -le "$most" ]'
	now=$(sum $V)
	ok "chunks of $chunk: dm and primary read the same" reads_as $P "$now"
	gone
done

# ---- discards, write-zeroes ----

fresh
fill
ok "without generations a discard passes" eval 'quiet blkdiscard -o 1M -l 1M $V && cmp -s -n 1M -i 1M:0 $V /dev/zero'
fill
before=$(sum $V)
snapctl create t --no-freeze >/dev/null
ok "a discard of what is not preserved is dropped" eval 'quiet blkdiscard $V && [ "$(sum $V)" = "$before" ] && [ "$(field 8)" = 0 ]'
dd if=/dev/urandom of=$V bs=64k seek=8 count=4 oflag=direct 2>/dev/null
ok "a discard of what is preserved passes" eval 'quiet blkdiscard -o 0 -l 4M $V && cmp -s -n 256k -i 512k:0 $V /dev/zero'
ok "and only that" eval 'cmp -s -n 512k $V $P && ! cmp -s -n 512k $V /dev/zero'
ok "write-zeroes of the whole device" eval 'quiet blkdiscard -z $V && cmp -s -n 8M $V /dev/zero'
ok "the generation is what it was" generation t@1 "$before"
ok "one copy a chunk" equal "$(field 8)" $((8 * 256))
gone

# ---- what survives ----

fresh
fill
first=$(sum $V)
snapctl create t --no-freeze >/dev/null
dd if=/dev/urandom of=$V bs=4k count=500 seek=100 oflag=direct 2>/dev/null
second=$(sum $V)
snapctl create t --no-freeze >/dev/null
dd if=/dev/urandom of=$V bs=4k count=900 seek=300 oflag=direct 2>/dev/null
third=$(sum $V)
null_disk cp 8 && null_disk cd 40 || exit 1
cp $P /dev/cp
cp $D /dev/cd
gone
sync

ok "a volume whose machine went away comes back" quiet snapctl attach c /dev/cp /dev/cd
ok "with its first generation" generation c@1 "$first"
ok "with its second generation" generation c@2 "$second"
ok "with its content" reads_as /dev/mapper/c "$third"
quiet dmsetup remove --retry c
null_gone cp cd

ok "a clean detach and attach" attach_line "0 $(sectors $P) snapdiff $P $D"
ok "keeps the generations" generation t@1 "$first"
gone
dd if=/dev/urandom of=$P bs=4k count=1 oflag=direct 2>/dev/null
ok "a primary that was written without us is refused" refuses "was written without" "0 $(sectors $P) snapdiff $P $D"
ok "with accept_changed it can be attached" attach_line "0 $(sectors $P) snapdiff $P $D 1 accept_changed"
ok "which the table does not repeat" eval '! dmsetup table t | grep -q accept_changed'
ok "its generations are lost, not wrong" json '[g["state"] for g in d["generations"]] == ["lost", "lost"]' list t
gone
attach_line "0 $(sectors $P) snapdiff $P $D"
ok "and stay lost" json '[g["state"] for g in d["generations"]] == ["lost", "lost"]' list t
ok "a new one works" eval 'quiet snapctl create t --no-freeze'
gone

# ---- errors ----

dmsetup create tdl --table "0 $(sectors $D) linear $D 0"
snapctl format /dev/mapper/tdl --force >/dev/null
attach_line "0 $(sectors $P) snapdiff $P /dev/mapper/tdl"
snapctl create t --no-freeze >/dev/null
dmsetup load tdl --table "0 $(sectors $D) error" && dmsetup suspend --noflush tdl && dmsetup resume tdl
ok "a diff that fails does not fail a write" quiet dd if=/dev/urandom of=$V bs=64k count=4 seek=3 oflag=direct conv=fsync
ok "the store has failed" equal "$(state)" failed
ok "status parses then, too" status_parses
ok "its generations are lost" json '[g["state"] for g in d["generations"]] == ["lost"]' list t
dmsetup load tdl --table "0 $(sectors $D) linear $D 0" && dmsetup suspend --noflush tdl && dmsetup resume tdl
sleep 2.5
gone
attach_line "0 $(sectors $P) snapdiff $P /dev/mapper/tdl"
ok "and stay so when the diff has come back" equal "$(state)" failed
ok "the primary can be written" quiet dd if=/dev/urandom of=$V bs=64k count=4 oflag=direct
gone
dmsetup remove tdl

snapctl format $D --force >/dev/null
dmsetup create tdp --table "0 $(sectors $P) dust $P 0 4096"
attach_line "0 $(sectors $P) snapdiff /dev/mapper/tdp $D"
fill
before=$( (dd if=$V bs=4k count=100; dd if=$V bs=4k skip=101) 2>/dev/null | sha256sum)
snapctl create t --no-freeze >/dev/null
dmsetup message tdp 0 addbadblock 100
dmsetup message tdp 0 enable
ok "a primary that cannot be read can be written" quiet dd if=/dev/urandom of=$V bs=64k count=8 seek=4 oflag=direct
dev=$(snapctl activate t@1)
ok "the chunk that could not be preserved is an I/O error" eval '! quiet dd if=$dev of=/dev/null bs=4k skip=100 count=1 iflag=direct'
dmsetup message tdp 0 disable
# all of the generation but that chunk
rest() { (dd if="$1" bs=4k count=100 iflag=direct; dd if="$1" bs=4k skip=101 iflag=direct) 2>/dev/null | sha256sum; }
ok "everything else is as it was" equal "$(rest "$dev")" "$before"
snapctl deactivate "$dev" >/dev/null
ok "the store goes on" equal "$(state)" rw
gone
dmsetup remove tdp

# ---- size ----

dmsetup create tdp --table "0 12288 linear $P 0"
snapctl format $D --force >/dev/null
attach_line "0 12288 snapdiff /dev/mapper/tdp $D"
fill
before=$(sum $V)
snapctl create t --no-freeze >/dev/null
dd if=/dev/urandom of=$V bs=64k count=20 oflag=direct 2>/dev/null
dmsetup load tdp --table "0 $(sectors $P) linear $P 0" && dmsetup suspend tdp && dmsetup resume tdp
ok "the volume grows with its primary" eval 'quiet dmsetup load t --table "0 $(sectors $P) snapdiff /dev/mapper/tdp $D" && dmsetup suspend t && dmsetup resume t && equal "$(sectors $V)" "$(sectors $P)"'
ok "the new end can be written" quiet dd if=/dev/urandom of=$V bs=64k count=20 seek=92 oflag=direct
ok "the generation has its size and content" generation t@1 "$before"
gone
attach_line "0 $(sectors $P) snapdiff /dev/mapper/tdp $D"
ok "also after a detach" generation t@1 "$before"
gone
dmsetup remove tdp

# ---- no room ----

null_gone tp td
null_disk tp 24 && null_disk ts 16 || exit 1
for policy in drop-oldest drop-all fail-snapshots; do
	snapctl format /dev/ts --force >/dev/null
	attach_line "0 $(sectors $P) snapdiff $P /dev/ts 2 on_full $policy"
	fill
	snapctl create t --no-freeze >/dev/null
	dd if=/dev/urandom of=$V bs=64k count=16 oflag=direct 2>/dev/null
	snapctl create t --no-freeze >/dev/null
	ok "$policy: writes go on when the diff is full" quiet timeout 60 dd if=/dev/urandom of=$V bs=1M count=24 oflag=direct conv=fsync
	ok "$policy: the store has not failed" equal "$(state)" rw
	ok "$policy: the generations are lost" json '[g["state"] for g in d["generations"]] == ["lost", "lost"]' list t
	before=$(sum $V)
	ok "$policy: the next one" wait_for quiet snapctl create t --no-freeze
	ok "$policy: can be written over" quiet timeout 60 dd if=/dev/urandom of=$V bs=1M count=4 oflag=direct conv=fsync
	ok "$policy: and holds" generation t@3 "$before"
	gone
	attach_line "0 $(sectors $P) snapdiff $P /dev/ts"
	ok "$policy: also after a detach" generation t@3 "$before"
	ok "$policy: what was lost stays lost" json '[g["state"] for g in d["generations"]][:2] == ["lost", "lost"]' list t
	gone
done
null_gone tp ts
finish
