#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1 uml-6.12-debug debian-6.1 debian-6.12
# disks: 32M 192M 64M 24M
# timeout: 600
#
# /dev/snapvirtN: what it shows, what it refuses, reads against writes, damage, loss, and a volume that goes away under it.

set -u
. "$(dirname "$0")/ktap.sh"

VIRT_ACTIVATE=9 VOLUME=2 GEN=4 PARTSCAN=11
SEED=${SEED:-$((RANDOM * 32768 + RANDOM))}
echo "# SEED=$SEED"

attach()
{
	snapctl attach "$@" > /dev/null
}

# read_at DEVICE OFFSET-IN-4K: one block
read_at()
{
	dd if="$1" of=/dev/null bs=4k count=1 skip="$2" iflag=direct status=none
}

state_of()
{
	snapctl list "${1%@*}" -n -o generation,state | awk -v g="${1#*@}" '$1 == g { print $2 }'
}

# reads_once DEVICE: a read of 1 MiB at a border of chunks reads so much of the diff (and a little metadata), whatever the size of the chunks
reads_once()
{
	local stat=/sys/block/${DISK2#/dev/}/stat before after

	before=$(awk '{ print $3 }' "$stat")
	dd if="$1" of=/dev/null bs=1M count=1 skip=1 iflag=direct status=none || return 1
	after=$(awk '{ print $3 }' "$stat")
	out="$((after - before)) sectors of the diff read"
	[ $((after - before)) -ge 2048 ] && [ $((after - before)) -lt 3072 ]
}

# races CHUNK SECTORS: three generations, the volume overwritten after each while all of them are read. A quarter of it where all is slow.
races()
{
	local epoch virtuals="" chunk=$1 sectors=$2
	[[ $KERNEL != debian-* ]] || sectors=$((sectors / 4))
	dmsetup create odd --table "0 $sectors linear $DISK1 0" || return 1
	works snapctl format "$DISK2" --force --chunk "$chunk" && works snapctl attach r /dev/mapper/odd "$DISK2" || return 1
	works virtrace fill /dev/mapper/r 1 || return 1
	for epoch in 1 2 3; do
		works snapctl create r || return 1
		virtuals="$virtuals $(snapctl activate r@$epoch):$epoch" || return 1
		# shellcheck disable=SC2086
		works virtrace race /dev/mapper/r $((epoch + 1)) $((SEED + epoch)) $virtuals || return 1
	done
	virtuals=${virtuals%%:*}
	reads_once "${virtuals# }" || return 1
	for epoch in 1 2 3; do
		works snapctl deactivate r@$epoch || return 1
	done
	snapctl detach r && dmsetup remove odd
}

# ---- reads against writes ----

ok "reads racing writes, chunks of 4k" races 4k 32768
ok "chunks of 64k, the last one cut off" races 64k 32771
ok "chunks of 1M, the last one cut off" races 1M 40001
for t in r odd; do dmsetup remove "$t" 2> /dev/null; done

# ---- what it is ----

snapctl format "$DISK2" --force > /dev/null
attach v "$DISK1" "$DISK2"
dd if=/dev/urandom of=/dev/mapper/v bs=1M count=32 oflag=direct status=none
printf 'start=2048, size=16384\nstart=20480, size=8192\n' | sfdisk -q /dev/mapper/v 2> /dev/null
snapctl create v > /dev/null
one=$(sum /dev/mapper/v)
dev=$(snapctl activate v@1)
name=${dev#/dev/}
ok "it has the size of the generation" prints $((32 << 20)) blockdev --getsize64 "$dev"
ok "it is read-only" prints 1 blockdev --getro "$dev"
ok "for ever" fails blockdev --setrw "$dev"
ok "it has the block size of the primary" prints "$(blockdev --getss "$DISK1")" blockdev --getss "$dev"
ok "it cannot be opened for writing" fails dd if=/dev/zero of="$dev" bs=4k count=1 conv=notrunc
ok "nor trimmed" fails blkdiscard "$dev"
ok "it has no partitions" test ! -e "/sys/block/$name/${name}p1"
ok "it reads as the volume" has_sum "$dev" "$one"
dd if=/dev/zero of=/dev/mapper/v bs=1M count=32 oflag=direct status=none
ok "and stays so" has_sum "$dev" "$one"
ok "through the page cache, too" test "$(sha256sum < "$dev" | cut -d' ' -f1)" = "$one"
ok "the volume cannot be removed" fails dmsetup remove v
ok "the module cannot go" fails rmmod snapdiff
exec 9< "$dev"
ok "it is not deactivated while it is open" fails snapctl deactivate v@1
exec 9<&-
ok "it is deactivated" works snapctl deactivate "$dev"
ok "with partitions on request" works nlprobe $VIRT_ACTIVATE $VOLUME:str:v $GEN:u32:1 $PARTSCAN:flag:
ok "there they are" test -e "/sys/block/$name/${name}p1" -a -e "/sys/block/$name/${name}p2"
ok "with their size" test "$(cat "/sys/block/$name/${name}p2/size")" = 8192
works snapctl deactivate v@1

# ---- damage ----

snapctl create v > /dev/null
dd if=/dev/urandom of=/dev/mapper/v bs=4k count=16 oflag=direct status=none
snapctl create v > /dev/null
dd if=/dev/urandom of=/dev/mapper/v bs=4k count=16 oflag=direct status=none
place=$(snapctl map v@3 --offset 28k --length 4k | awk 'END { print $NF / 4096 }')
dd if=/dev/urandom of="$DISK2" bs=4k count=1 seek="$place" oflag=direct status=none
dev=$(snapctl activate v@3)
ok "a damaged chunk is an error" fails read_at "$dev" 7
ok "its neighbours are not" works read_at "$dev" 6
ok "on both sides" works read_at "$dev" 8
ok "a large read with a damaged chunk is an error" fails dd if="$dev" of=/dev/null bs=64k count=1 iflag=direct
works snapctl deactivate v@3
dev=$(snapctl activate v@2)
ok "other generations are not damaged" works read_at "$dev" 7

# ---- the volume goes away ----

exec 9< "$dev"
(while dd if="$dev" of=/dev/null bs=1M iflag=direct status=none 2> /dev/null; do :; done; : > /tmp/reader-ended) &
reader=$!
sleep 0.5
ok "another table takes the place of the volume" works dmsetup wipe_table v
ok "reads under way end" wait $reader
ok "with an error" test -e /tmp/reader-ended
ok "and so do later ones" fails read_at "$dev" 0
ok "it is still there" test -b "$dev"
ok "the module is still needed" fails rmmod snapdiff
exec 9<&-
ok "it can be deactivated by its number" works snapctl deactivate "$dev"
ok "then the device can be removed" works dmsetup remove v
ok "the generations are there the next time" works snapctl attach v "$DISK1" "$DISK2"
ok "all of them" prints 3 sh -c 'snapctl list v -n -o generation | wc -l'
dev=$(snapctl activate v@1)
ok "with their bytes" has_sum "$dev" "$one"
works snapctl deactivate v@1
snapctl detach v

# ---- loss ----

dd if=/dev/urandom of="$DISK3" bs=1M count=64 oflag=direct status=none
attach f "$DISK3" "$DISK4" --format
for g in 1 2 3; do
	snapctl create f > /dev/null
	dd if=/dev/urandom of=/dev/mapper/f bs=64k count=16 seek=$((g * 16)) oflag=direct status=none
done
snapctl pin f@2
dev=$(snapctl activate f@3)
snapctl monitor --json --timeout 60 --count 5 > /tmp/events 2> /dev/null &
monitor=$!
sleep 0.5
ok "a write into a full differential volume works" works dd if=/dev/urandom of=/dev/mapper/f bs=1M count=64 oflag=direct
ok "the first generation is lost" prints lost state_of f@1
ok "so are the others, at last" prints "lost lost" echo "$(state_of f@2) $(state_of f@3)"
ok "an open one answers with errors" fails read_at "$dev" 0
ok "a lost one cannot be activated" fails snapctl activate f@1
kill $monitor 2> /dev/null
wait $monitor
out=$(cat /tmp/events)
ok "the oldest that was free went first" python3 -c '
import json
events = [json.loads(l) for l in open("/tmp/events")]
lost = [e["generation"] for e in events if e["event"] == "lost"]
assert lost[0] == 1, lost
assert "low-space" in [e["event"] for e in events] or "full" in [e["event"] for e in events], events'
works snapctl deactivate "$dev"
ok "a new generation can be made" works snapctl create f
ok "and is live" prints live state_of f@4
works snapctl detach f
works snapctl attach f "$DISK3" "$DISK4"
ok "what was lost stays lost" prints lost state_of f@2
works snapctl detach f

# full POLICY: two generations, then everything is overwritten
full()
{
	works snapctl format "$DISK4" --force && works snapctl attach f "$DISK3" "$DISK4" --on-full "$1" || return 1
	works snapctl create f && works dd if=/dev/urandom of=/dev/mapper/f bs=64k count=16 oflag=direct &&
		works snapctl create f && works dd if=/dev/urandom of=/dev/mapper/f bs=1M count=64 oflag=direct || return 1
	out="$(state_of f@1) $(state_of f@2)"
	[ "$out" = "lost lost" ]
}

ok "drop-all gives up all of them" full drop-all
ok "and still knows what changed" works snapctl diff f@1 f
ok "all of it" test "$(snapctl diff f@1 f -n --bytes | awk '{ n += $2 } END { print n }')" = $((64 << 20))
works snapctl detach f
ok "fail-snapshots gives up all of them" full fail-snapshots
ok "and does not know what changed" fails snapctl diff f@1 f
works snapctl detach f
ok "the module can go" works rmmod snapdiff
finish
