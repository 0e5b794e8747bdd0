#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1 uml-6.12-debug
# mem: 2G
# timeout: 300
#
# A primary and a diff that grow while they are written; generations of different sizes, also in backups.
#
# Sizes in sectors. The primary's are no multiples of a chunk; the diff gets a second block group (126 MiB).

. "${BASH_SOURCE%/*}/lib.sh"

V=/dev/mapper/v P=/dev/mapper/gp D=/dev/mapper/gd
SMALL=40963 LARGE=73735 DSMALL=81920 DLARGE=335872
export SNAPDIFF_STATE_DIR=/tmp/state
writer=

sectors() { blockdev --getsz "$1"; }

# resize DEVICE SECTORS DISK: of a device under the volume
resize() { dmsetup load "$1" --table "0 $2 linear $3 0" && dmsetup suspend "$1" && dmsetup resume "$1"; }

# Writes single blocks of the first 8 MiB until it is killed.
start_writer()
{
	python3 -c "
import os, random, sys
f = os.open('$V', os.O_RDWR | os.O_DIRECT)
import mmap
b = mmap.mmap(-1, 4096)
r = random.Random(1)
n = 0
while True:
    b[:8] = n.to_bytes(8, 'little')
    os.pwrite(f, b, r.randrange(2048) * 4096)
    n += 1
    if n == 200:
        open('/tmp/writing', 'w').close()
" &
	writer=$!
	wait_for test -e /tmp/writing
}

stop_writer() { kill "$writer" && ! wait "$writer" 2>/dev/null; }
writing() { kill -0 "$writer"; }

# look N: what generation N is, read while everything is written
look()
{
	local dev

	dev=$(snapctl activate v@"$1") || return 1
	sum "$dev" >/tmp/sum."$1"
	quiet snapctl deactivate "$dev"
}
is() { generation v@"$1" "$(cat /tmp/sum."$1")"; }

past_the_end()
{
	local dev r

	dev=$(snapctl activate v@1) || return 1
	equal "$(sectors "$dev")" $SMALL && equal "$(dd if="$dev" bs=512 skip=$SMALL 2>/dev/null | wc -c)" 0
	r=$?
	quiet snapctl deactivate "$dev" && return $r
}

fill() { dd if=/dev/urandom of=$V bs=1M oflag=direct 2>/dev/null; sync; }

needs_table() { ! quiet dmsetup load v --table "0 $1 snapdiff $P $D" && dmesg | tail -n 3 | grep -q "$2"; }

# A frozen device must not keep the resume from the cut that waits for it.
cut_while_suspended()
{
	local cut

	mkdir -p /tmp/m && mkfs.ext4 -q -F $V && mount $V /tmp/m && head -c 1M /dev/urandom >/tmp/m/dirty || return 1
	dmsetup suspend --nolockfs v || return 1
	snapctl create v >/tmp/cut &
	cut=$!
	sleep 1
	kill -0 $cut && quiet timeout 20 dmsetup resume v && wait $cut && umount /tmp/m
}

null_disk np 48 && null_disk nd 170 || exit 1
dmsetup create gp --table "0 $SMALL linear /dev/np 0" && dmsetup create gd --table "0 $DSMALL linear /dev/nd 0" || exit 1
snapctl attach v $P $D --format >/dev/null || exit 1
fill
sum $V >/tmp/sum.1
snapctl create v --no-freeze >/dev/null

# ---- nothing to take, shrinking ----

ok "nothing has grown" eval 'works resize v && equal "$out" "primary: $((SMALL * 512)) bytes, as before
diff: $((DSMALL * 512)) bytes, as before"'
resize gp $((SMALL - 8)) /dev/np
ok "a smaller primary is refused" refused 4 "cannot shrink: the primary has" resize v
resize gp $SMALL /dev/np
ok "and a table that says so" needs_table $((SMALL - 8)) "a volume cannot shrink"
ok "and one that is longer than the primary" needs_table $((SMALL + 8)) "is not the size of PRIMARY"
resize gd $((DSMALL - 8)) /dev/nd
ok "a smaller diff is refused" refused 4 "cannot shrink: the diff has" resize v --diff
resize gd $DSMALL /dev/nd
ok "nobody is harmed" equal "$(stat_of v state)" rw

# ---- growing under load ----

start_writer
snapctl create v --no-freeze >/dev/null
look 2
resize gp $LARGE /dev/np
resize gd $DLARGE /dev/nd
snapctl monitor --json --count 2 --timeout 60 >/tmp/events &
monitor=$!
sleep 0.5
ok "the volume keeps its size until it is told" equal "$(sectors $V)" $SMALL
ok "and its table can be loaded again" eval 'line=$(dmsetup table v) && echo "$line" | dmsetup load v && dmsetup suspend v && dmsetup resume v && equal "$(dmsetup table v)" "$line"'
ok "resize under writes" eval 'works resize v && equal "$out" "primary: from $((SMALL * 512)) to $((LARGE * 512)) bytes
diff: from $((DSMALL * 512)) to $((DLARGE * 512)) bytes"'
ok "the writer goes on" writing
ok "the volume has its primary's size" equal "$(sectors $V)" $LARGE
ok "the store has its diff's size" equal "$(stat_of v diff_size)" $((DLARGE * 512))
wait $monitor
ok "events tell of both" eval 'out=$(cat /tmp/events); equal "$(grep -c "\"event\":\"resized\"" /tmp/events)" 2'
snapctl create v --no-freeze >/dev/null
look 3
ok "again, with nothing to do" works resize v
ok "stop the writer" stop_writer
ok "generation 1 is what it was" is 1
ok "generation 2 too" is 2
ok "and generation 3" is 3
ok "each has its own size" json '[g["size"] // 512 for g in d["generations"]] == ['$SMALL', '$SMALL', '$LARGE']' list v
ok "nothing is to be read behind the end of the smaller" past_the_end

# ---- the new room is used, more of it than there was before ----

fill
sum $V >/tmp/sum.4
snapctl create v --no-freeze >/dev/null
fill
ok "no generation is lost" json 'all(g["state"] == "live" for g in d["generations"])' list v
ok "more is used than there was" eval 'used=$(stat_of v diff_used); out=$used; [ "$used" -gt $((DSMALL * 512)) ]'
ok "the new end is preserved" is 4
ok "what has grown counts as changed" json 'd["extents"][-1] == {"offset": '$((SMALL / 8 * 4096))', "length": '$((LARGE * 512 - SMALL / 8 * 4096))'}' diff v@1 v@3
ok "also until now" json 'sum(e["length"] for e in d["extents"]) == '$((LARGE * 512)) diff v@1 v

# ---- backups of different sizes ----

snapmedia init /tmp/media >/dev/null
snapmediad /tmp/media --listen 127.0.0.1:7419 --foreground >/tmp/port 2>/tmp/server.log &
server=$!
wait_for test -s /tmp/port
back() { quiet snapbackup v --gen "$1" --dest 127.0.0.1 -q --json "${@:2}"; }
stored()
{
	quiet snaprestore --from 127.0.0.1 --volume v --gen "$1" --to /tmp/r -q --force && equal "$(sum /tmp/r)" "$(cat /tmp/sum."$1")"
}
ok "a full backup of the smaller" back 1
ok "an increment of its size" back 2 --base 1
ok "an increment of the larger on the smaller" eval 'back 3 --base 2 && [[ $out == *\"base\":2,* && $out == *\"size\":$((LARGE * 512)),* ]]'
ok "one more" back 4
ok "the smaller comes back" stored 1
ok "the larger comes back" stored 3
ok "and the last" stored 4
kill $server

# ---- crash, detach, attach ----

ok "a cut that waits for a suspended device" cut_while_suspended
null_disk cp 48 && null_disk cd 170 || exit 1
sum $V >/tmp/now
cp /dev/np /dev/cp && cp /dev/nd /dev/cd
works detach v
ok "the store is without errors" quiet snapmeta check $D --data
works attach v $P $D
ok "after a detach: the smaller" is 1
ok "after a detach: the larger" is 3
ok "after a detach: the last" is 4
works detach v
dmsetup create xp --table "0 $LARGE linear /dev/cp 0"
ok "what a crash leaves has the new size" works attach v /dev/mapper/xp /dev/cd
ok "of the store, too" equal "$(stat_of v diff_size)" $((DLARGE * 512))
ok "the volume after the crash" reads_as $V "$(cat /tmp/now)"
ok "after the crash: the smaller" is 1
ok "after the crash: the last" is 4
works detach v
dmsetup remove xp gp gd
null_gone np nd cp cd
finish
