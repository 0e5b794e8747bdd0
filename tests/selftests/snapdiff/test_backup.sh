#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1 uml-6.12-debug
# disks: 32M 96M 32M 16M
# timeout: 600
#
# Real generations to a media server and back: full, increments, bookmarks, a connection that breaks, damage in the diff.
#
# The primary is 24 MiB and 3 sectors: no multiple of 4 KiB.

set -u
. "$(dirname "$0")/ktap.sh"

SECTORS=49155
REPO=/tmp/media
export SNAPDIFF_STATE_DIR=/tmp/state
server=

start_server()
{
	snapmediad $REPO --listen 127.0.0.1:7419 --foreground > /tmp/port 2>> /tmp/server.log &
	server=$!
	for _ in $(seq 100); do
		[ -s /tmp/port ] && return 0
		sleep 0.1
	done
	return 1
}

stop_server()
{
	kill "$server" && wait "$server"
}

field()
{
	printf '%s' "$out" | sed -n "s/.*\"$1\":\"\{0,1\}\([^,\"}]*\).*/\1/p"
}

# scatter COUNT SEED: random 4 KiB blocks of random bytes, distinct, in the first 20 MiB
scatter()
{
	python3 - "$1" "$2" <<-'PY'
		import os, random, sys
		f = os.open('/dev/mapper/vol', os.O_WRONLY)
		for b in random.Random(int(sys.argv[2])).sample(range(5120), int(sys.argv[1])):
		    os.pwrite(f, os.urandom(4096), b * 4096)
		os.fsync(f)
	PY
}

# take N: a generation, its sum noted
take()
{
	works snapctl create vol && dev=$(snapctl activate vol@"$1") && sum "$dev" > /tmp/sum."$1" && works snapctl deactivate "$dev"
}

backup()
{
	works snapbackup vol --gen "$1" --dest 127.0.0.1 -q --json "${@:2}"
}

# stored N: what comes back is what was cut
stored()
{
	works snaprestore --from 127.0.0.1 --volume vol --gen "$1" --to /tmp/r -q --force || return 1
	out="$(sha256sum < /tmp/r | cut -d' ' -f1), $(stat -c %s /tmp/r) bytes"
	[ "$out" = "$(cat /tmp/sum."$1"), $((SECTORS * 512)) bytes" ]
	local r=$?
	rm -f /tmp/r
	return $r
}

# idle N: no virtual volume is left, and no pin
idle()
{
	out=$(snapctl list vol --json)
	printf '%s' "$out" | python3 -c "
import json, sys
g = [g for g in json.load(sys.stdin)['generations'] if g['generation'] == $1][0]
sys.exit(1 if g.get('pinned') or g.get('device') or 'virt' in str(g.get('flags', '')) else 0)" && [ ! -e /dev/snapvirt0 ]
}

full()
{
	{ dd if=/dev/urandom bs=1M count=8; dd if=/dev/zero bs=1M count=8; dd if=/dev/urandom bs=1M count=8; head -c 1536 /dev/urandom; } \
		2> /dev/null > /dev/mapper/vol
	take 1 && backup 1 && stored 1
}

# A backup that waits for the reader of its pipe: alive, nobody touches what it has; killed, the next one takes it back.
killed()
{
	local pid

	mkfifo /tmp/fifo
	snapbackup vol --gen 1 --dest /tmp/fifo -q &
	pid=$!
	for _ in $(seq 100); do
		! idle 1 && [ -e /dev/snapvirt0 ] && break
		sleep 0.1
	done
	run snapbackup vol --gen 1 --dest 127.0.0.1 -q
	[ $rc = 5 ] && [[ $out == *"is being backed up already"* ]] && ! idle 1 || return 1
	kill -9 $pid
	wait $pid 2> /dev/null
	! idle 1 || return 1
	works snapbackup vol --gen 1 --dest 127.0.0.1 -q && [[ $out == *"taken back"* ]] && idle 1 && [ -z "$(ls /run/snapdiff)" ]
}

# 300 scattered blocks: them and at most 2 %
increment()
{
	scatter 300 1 && take 2 && backup 2 || return 1
	[ "$(field base)" = 1 ] && [ "$(field change_bytes)" = 1228800 ] && [ "$(field sent_bytes)" -le 1253376 ] && stored 2
}

bookmark_as_base()
{
	works snapctl bookmark vol@2 && scatter 50 2 || return 1
	dd if=/dev/zero of=/dev/mapper/vol bs=1M count=2 seek=5 conv=notrunc,fsync status=none
	head -c 1536 /dev/urandom | dd of=/dev/mapper/vol bs=512 seek=$((SECTORS - 3)) conv=notrunc,fsync status=none	# the odd end
	take 3 && backup 3 --keep bookmark || return 1
	[ "$(field base)" = 2 ] && [ "$(field zero_bytes)" -ge 2000000 ] && stored 3 && stored 2
}

kept_as_bookmark()
{
	works snapctl list vol -n -o generation,state && grep -q '3 *bookmark' <<< "$out"
}

same_extents()
{
	scatter 40 3 && take 4 || return 1
	works snapbackup vol --gen 4 --dest 127.0.0.1 --dry-run -q || return 1
	local plan want
	plan=$(grep -v '^#' <<< "$out")
	want=$(snapctl diff vol@3 vol@4 --json | python3 -c "
import json, sys
last = None
for x in json.load(sys.stdin)['extents']:
    if last and last[0] + last[1] == x['offset']:
        last[1] += x['length']
    else:
        if last: print(*last)
        last = [x['offset'], x['length']]
print(*last)")
	out=$(diff <(echo "$plan") <(echo "$want"))
}

told_why_full()
{
	rm -rf /tmp/media2
	works snapmedia init /tmp/media2 && works snapbackup vol --gen 4 --dest /tmp/media2 || return 1
	[[ $out == *"full backup: the media server has nothing of this volume"* ]]
}

wrong_base()
{
	run snapbackup vol --gen 4 --dest /tmp/media2 --base 3 -q
	[ $rc = 4 ] && [[ $out == *"has no generation 3"* ]]
}

no_such_generation()
{
	run snapbackup vol --gen 99 --dest 127.0.0.1 -q
	[ $rc = 4 ] || return 1
	run snapbackup vol --gen 2 --dest 127.0.0.1 -q
	[ $rc = 4 ] && [[ $out == *"a bookmark"* ]] || return 1
	run snapbackup nosuch --gen 1 --dest 127.0.0.1 -q
	[ $rc = 4 ]
}

# The connection breaks after a while; afterwards the rest goes over.
cut_and_resumed()
{
	dd if=/dev/urandom of=/dev/mapper/vol bs=1M count=20 conv=notrunc,fsync status=none
	take 5 || return 1
	printf '#!/bin/sh\nshift 2\ndd bs=65536 count=200 status=none | "$@"\n' > /tmp/broken
	chmod +x /tmp/broken
	SNAPDIFF_SSH=/tmp/broken run snapbackup vol --gen 5 --dest ssh://x$REPO --base none -q
	[ $rc = 6 ] && idle 5 || return 1
	run snaprestore --from 127.0.0.1 --volume vol --gen 5 --to /tmp/r -q
	[ $rc = 4 ] && [ ! -e /tmp/r ] || return 1
	backup 5 --base none || return 1
	[ "$(field state)" = resumed ] && [ "$(field resumed_bytes)" -gt 1000000 ] && stored 5
}

stream()
{
	works snapbackup vol --gen 4 --dest /tmp/stream --base none -q || return 1
	snaprestore --from - --gen 4 --to - -q < /tmp/stream > /tmp/r || return 1
	out=$(sha256sum < /tmp/r | cut -d' ' -f1)
	rm -f /tmp/r /tmp/stream
	[ "$out" = "$(cat /tmp/sum.4)" ]
}

# A diff of a generation on a bookmark: its names say which ones, and it makes the one of the other.
rbd_diff()
{
	local from to apply=${BASH_SOURCE%/*}/../../e2e/rbd-diff.py
	read -r from to <<< "$(snapctl list vol --json | python3 -c "
import json, sys
g = {x['generation']: x['uuid'][:8] for x in json.load(sys.stdin)['generations']}
print('snapdiff-3-' + g[3], 'snapdiff-4-' + g[4])")"
	snaprestore --from 127.0.0.1 --volume vol --gen 3 --to /tmp/r -q --force || return 1
	works snapbackup vol --gen 4 --base 3 --dest /tmp/diff --format rbd-diff -q || return 1
	works "$apply" apply /tmp/diff /tmp/r || return 1
	[[ $out == *"\"from\": \"$from\""* && $out == *"\"to\": \"$to\""* ]] || return 1
	out=$(sha256sum < /tmp/r | cut -d' ' -f1)
	rm -f /tmp/r /tmp/diff
	[ "$out" = "$(cat /tmp/sum.4 | cut -d, -f1)" ]
}

to_device()
{
	works snaprestore --from 127.0.0.1 --volume vol --gen 3 --to "$DISK3" -q || return 1
	out=$(head -c $((SECTORS * 512)) "$DISK3" | sha256sum | cut -d' ' -f1)
	[ "$out" = "$(cat /tmp/sum.3)" ]
}

not_onto_what_is_used()
{
	local before
	before=$(sum /dev/mapper/odd)
	run snaprestore --from 127.0.0.1 --volume vol --gen 3 --to /dev/mapper/odd -q	# the primary
	[ $rc = 5 ] || return 1
	has_sum /dev/mapper/odd "$before" || return 1
	mkfs.ext4 -q -F "$DISK3" && mkdir -p /tmp/mnt && mount "$DISK3" /tmp/mnt || return 1
	run snaprestore --from 127.0.0.1 --volume vol --gen 3 --to "$DISK3" -q
	local r=$rc
	umount /tmp/mnt
	[ $r = 5 ] || return 1
	before=$(sum "$DISK4")
	run snaprestore --from 127.0.0.1 --volume vol --gen 3 --to "$DISK4" -q
	[ $rc != 0 ] && [[ $out == *"has 16777216 bytes"* ]] && has_sum "$DISK4" "$before"
}

# Only what is wrong is written; a device that somebody uses is refused here too, and so is one in use as swap.
device_in_place()
{
	local before
	head -c 4096 /dev/urandom | tee >(dd of="$DISK3" bs=4096 seek=7 conv=notrunc status=none) | dd of="$DISK3" bs=4096 seek=3000 conv=notrunc status=none
	sync
	works snaprestore --from 127.0.0.1 --volume vol --gen 3 --to "$DISK3" --diff-against-live || return 1
	[[ $out == *" 8192 bytes differed"* ]] || return 1
	out=$(head -c $((SECTORS * 512)) "$DISK3" | sha256sum | cut -d' ' -f1)
	[ "$out" = "$(cat /tmp/sum.3)" ] || return 1
	before=$(sum /dev/mapper/odd)
	run snaprestore --from 127.0.0.1 --volume vol --gen 3 --to /dev/mapper/odd --diff-against-live -q
	[ $rc = 5 ] && has_sum /dev/mapper/odd "$before" || return 1
	mkswap "$DISK4" > /dev/null && swapon "$DISK4" || { out="no swap"; return 1; }
	run snaprestore --from 127.0.0.1 --volume vol --gen 3 --to "$DISK4" -q
	local r=$rc
	swapoff "$DISK4"
	[ $r = 5 ]
}

# One destination gets every generation, the other every second one: what is turned into a bookmark after the first is still the
# other's base.
two_destinations()
{
	works snapmedia init /tmp/slow && scatter 10 21 && take 6 || return 1
	works snapbackup vol --gen 6 --dest /tmp/slow -q && backup 6 --keep bookmark || return 1
	scatter 10 22 && take 7 && backup 7 --keep bookmark || return 1
	[ "$(field base)" = 6 ] || return 1
	scatter 10 23 && take 8 && works snapbackup vol --gen 8 --dest /tmp/slow --json || return 1
	[[ $out == *"increment on 6: the newest that is here and on the media server"* ]] && [ "$(field change_bytes)" -gt $((10 * 4096)) ] || return 1
	backup 8 --keep bookmark && [ "$(field base)" = 7 ] && [ "$(field change_bytes)" = $((10 * 4096)) ] && stored 8 && stored 7 || return 1
	snaprestore --from /tmp/slow --gen 8 --to - -q | sha256sum > /tmp/r
	out=$(cut -d' ' -f1 /tmp/r)
	[ "$out" = "$(cat /tmp/sum.8)" ]
}

# What has rotted over there is no base: the newest sound one is, found without anybody's help.
rot_is_no_base()
{
	local pack

	pack=$(find /tmp/slow/objects -name '*.pack' -newer /tmp/sum.8 | head -1)	# of generation 8
	[ -n "$pack" ] && printf 'rotten' | dd of="$pack" bs=1 seek=3000 conv=notrunc status=none || return 1
	run snapmedia verify /tmp/slow
	[ $rc = 6 ] && scatter 10 24 && take 9 || return 1
	works snapbackup vol --gen 9 --dest /tmp/slow || return 1
	[[ $out == *"increment on 6: the newest that is here and on the media server, where 8 is damaged"* ]] || return 1
	snaprestore --from /tmp/slow --gen 9 --to - -q | sha256sum > /tmp/r
	out=$(cut -d' ' -f1 /tmp/r)
	[ "$out" = "$(cat /tmp/sum.9)" ]
}

# A preserved chunk rots: the backup fails, and nothing of it becomes visible.
rot_is_no_backup()
{
	local place
	scatter 20 9
	place=$(snapctl map vol@5 --json | python3 -c "
import json, sys
x = [x for x in json.load(sys.stdin)['extents'] if x['where'] == 'diff'][0]
print(x.get('place', x.get('diff_offset', x.get('address'))))")
	[ -n "$place" ] && [ "$place" != None ] || { out="no place: $(snapctl map vol@5 --json | head -c 300)"; return 1; }
	works snapmedia init /tmp/media3 || return 1
	printf 'rotten' | dd of="$DISK2" bs=1 seek=$((place + 100)) conv=notrunc,fsync oflag=direct status=none 2> /dev/null ||
		python3 -c "
import mmap, os
f = os.open('$DISK2', os.O_RDWR | os.O_DIRECT)
m = mmap.mmap(-1, 4096)
os.preadv(f, [m], $place); m[100:106] = b'rotten'; os.pwritev(f, [m], $place)" || return 1
	run snapbackup vol --gen 5 --dest /tmp/media3 -q
	[ $rc = 6 ] && [[ $out == *"cannot read"* ]] || return 1
	works snapmedia list /tmp/media3 -n && [ -z "$out" ] && idle 5
}

dmsetup create odd --table "0 $SECTORS linear $DISK1 0" || exit 4
snapctl attach vol /dev/mapper/odd "$DISK2" --format > /dev/null || exit 1
snapmedia init $REPO && start_server || exit 1
ok "full over TCP, restored" full
ok "nothing is left active or pinned" idle 1
ok "killed: the next backup takes back what it left" killed
ok "increment: what changed and at most 2 %" increment
ok "increment on a bookmark; --keep bookmark" bookmark_as_base
ok "it is a bookmark now" kept_as_bookmark
ok "dry run: the extents of snapctl diff" same_extents
ok "auto on an empty repository: full, and why" told_why_full
ok "explicit base that the server has not" wrong_base
ok "unknown generation, bookmark, volume" no_such_generation
ok "connection cut: nothing visible, nothing left behind, then resumed" cut_and_resumed
ok "stream through a pipe" stream
ok "rbd diff on a bookmark" rbd_diff
ok "restore to a device" to_device
ok "onto a device in place: what differs; not onto what is used" device_in_place
ok "not onto a primary, a mounted or a small device" not_onto_what_is_used
ok "two destinations, one slower" two_destinations
ok "damaged base: a sound one, by itself" rot_is_no_base
ok "damaged chunk: no backup" rot_is_no_backup
ok "server stops" stop_server
ok "the repository is sound" works snapmedia verify $REPO
ok "detach" works snapctl detach vol
finish
