#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Full and increments of plain images over every carrier, interrupted and taken up, restored and compared.
. "$(dirname "$0")/media-lib.sh"
begin 22

# Scattered random 4 KiB changes: COUNT of them, in a copy of FROM. Distinct blocks.
change() {	# FROM TO COUNT BLOCKS SEED
	cp --sparse=always "$1" "$2"
	head -c $(($3 * 4096)) /dev/urandom >"$W/bytes"
	python3 - "$2" "$W/bytes" "$3" "$4" "$5" <<-'PY'
		import random, sys
		path, data, count, blocks, seed = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
		new = open(data, 'rb').read()
		with open(path, 'r+b') as f:
		    for i, b in enumerate(random.Random(seed).sample(range(blocks), count)):
		        f.seek(b * 4096)
		        f.write(new[i * 4096:(i + 1) * 4096])
	PY
}

# 48 MiB and a bit: random, zeros, text; no multiple of a block.
make_images() {
	{
		head -c 16M /dev/urandom
		head -c 16M /dev/zero
		tar c Makefile module userspace tests/vm 2>/dev/null | head -c 16M
		head -c 4097 /dev/urandom
	} >"$W/g1"
	truncate -s 50000123 "$W/g1"
	change "$W/g1" "$W/g2" 1000 4096 1	# incompressible ones
	change "$W/g2" "$W/g3" 50 12000 2
	head -c 2M /dev/zero | dd of="$W/g3" bs=1M seek=3 conv=notrunc status=none
	truncate -s 50123457 "$W/g3"		# grown
	change "$W/g3" "$W/g4" 20 9000 3
	truncate -s 40000001 "$W/g4"		# shrunk
	change "$W/g4" "$W/g5" 10 9000 4
	truncate -s 51000000 "$W/g5"		# and grown again
}

back() {	# GEN DEST [BASE]
	local g=$1 dest=$2 base=${3:-}
	snapbackup --image "$W/g$g" --uuid "$U" --volume-name disk --gen "$g" --dest "$dest" -q --json \
		${base:+--base "$base" --base-image "$W/g$base"} >"$W/receipt"
}

same() {	# GEN SOURCE
	rm -f "$W/r"
	snaprestore --from "$2" --volume disk --gen "$1" --to "$W/r" -q && cmp "$W/g$1" "$W/r"
}

full_tcp() {
	back 1 "127.0.0.1:$PORT" && same 1 "127.0.0.1:$PORT"
}

# 1000 scattered blocks of random bytes: what goes over the wire is them and at most 2 %.
increment_tcp() {
	back 2 "127.0.0.1:$PORT" 1 || return 1
	local sent changed
	sent=$(field sent_bytes <"$W/receipt")
	changed=$(field change_bytes <"$W/receipt")
	echo "changed $changed, sent $sent"
	[ "$changed" = $((1000 * 4096)) ] || return 1
	[ "$sent" -le $((changed + changed / 50)) ] || return 1
	same 2 "127.0.0.1:$PORT"
}

# Records go out as they are stored: what travels for the increment on its base is not more than what the two take, and nothing is packed anew.
restore_as_stored() {
	local stored got
	rm -f "$W/r"
	snaprestore --from "127.0.0.1:$PORT" --volume disk --gen 2 --to "$W/r" -q --stats 2>"$W/err" && cmp "$W/g2" "$W/r" || return 1
	cat "$W/err"
	stored=$(find "$W/repo" -path '*/packs/*' -type f -printf '%s\n' | awk '{ n += $1 } END { print n }')
	got=$(field received_bytes <"$W/err")
	echo "stored $stored"
	[ "$(field repacked_frames <"$W/err")" = 0 ] && [ "$stored" -gt 1000000 ] && [ "$got" -le $((stored + stored / 50)) ]
}

# ssh stands for itself: "-T HOST COMMAND..." is run here.
increment_ssh() {
	printf '#!/bin/sh\nshift 2\nexec "$@"\n' >"$W/ssh"
	chmod +x "$W/ssh"
	export SNAPDIFF_SSH=$W/ssh
	back 3 "ssh://somebody@somewhere$W/repo" 2 && same 3 "ssh://somebody@somewhere$W/repo"
}

shrunk_and_grown() {
	back 4 "$W/repo" 3 && back 5 "$W/repo" 4 && same 4 "$W/repo" && same 5 "127.0.0.1:$PORT"
}

all_same() {
	local g
	for g in 1 2 3 4 5; do
		same $g "$W/repo" || return 1
	done
}

to_stdout() {
	snaprestore --from "127.0.0.1:$PORT" --volume disk --gen 3 --to - -q | cmp - "$W/g3" &&
		snaprestore --from "$W/repo" --volume disk --gen 2 --to - -q | cmp - "$W/g2"
}

wrong_parent() {
	cp "$W/g1" "$W/g9"
	cp "$W/g1" "$W/g8"
	! back 9 "$W/repo" 8 2>"$W/err" && grep -q "has no generation 8" "$W/err" || { cat "$W/err"; return 1; }
	# The same number again, with other content
	head -c 100 /dev/urandom | dd of="$W/g9" conv=notrunc status=none
	snapbackup --image "$W/g9" --uuid "$U" --gen 2 --dest "$W/repo" -q 2>"$W/err"
	[ $? = 5 ] && grep -q "generation 2 is here already" "$W/err"
}

again_is_no_error() {
	back 3 "$W/repo" 2 && [ "$(field state <"$W/receipt")" = published ]
}

not_loopback() {
	snapmediad "$W/repo" --listen 0.0.0.0:0 --foreground 2>"$W/err"
	[ $? = 2 ] && grep -q "not a loopback address" "$W/err" || return 1
	back 1 "192.0.2.1" 2>"$W/err"
	[ $? = 2 ] && grep -q "not a loopback address" "$W/err"
}

refused_targets() {
	snaprestore --from "$W/repo" --volume disk --gen 1 --to "$W/r" -q	# is there
	[ $? = 5 ] || return 1
	snaprestore --from "$W/repo" --volume disk --gen 77 --to "$W/new" -q
	[ $? = 4 ] && [ ! -e "$W/new" ] || return 1
	snaprestore --from "$W/repo" --volume disk --gen 1 --to /dev/nosuchdevice -q
	[ $? = 4 ] && [ ! -e /dev/nosuchdevice ]
}

dry_run() {
	snapbackup --image "$W/g2" --uuid "$U" --gen 2 --base 1 --base-image "$W/g1" --dest "$W/repo" --dry-run -q >"$W/plan" || return 1
	awk '!/^#/ { b += $2 } END { exit b != 4096000 }' "$W/plan" && grep -q "^# 4096000 bytes" "$W/plan"
}

# A list of changes instead of comparing: only what it names is read and sent.
told_changes() {
	cp "$W/g3" "$W/g60"
	{ echo "# by hand"; echo "8192 4096"; echo "40960 1"; echo "50122752 9999999"; } >"$W/list"
	snapbackup --image "$W/g60" --uuid "$U" --volume-name disk --gen 60 --base 3 --base-image "$W/g3" --changes "$W/list" --dest "$W/repo" -q --json >"$W/receipt" &&
		[ "$(field change_bytes <"$W/receipt")" = $((4096 + 4096 + 50123457 - 50122752)) ] && same 60 "$W/repo" || return 1
	for bad in "4097 4096" "0 0" "8192 4096
4096 4096" "x"; do
		echo "$bad" >"$W/list"
		! snapbackup --image "$W/g60" --uuid "$U" --volume-name disk --gen 61 --base 3 --base-image "$W/g3" --changes "$W/list" --dest "$W/repo" -q || return 1
	done
}

streams() {
	back 1 "$W/s1" && back 2 "$W/s2" 1 && back 3 - 2 || return 1
	snapbackup --image "$W/g3" --uuid "$U" --volume-name disk --gen 3 --base 2 --base-image "$W/g2" --dest - -q \
		2>/dev/null >"$W/s3" || return 1
	rm -f "$W/r"
	snaprestore --from "$W/s1" "$W/s2" "$W/s3" --gen 3 --to "$W/r" -q && cmp "$W/g3" "$W/r" || return 1
	rm -f "$W/r"
	! snaprestore --from "$W/s1" "$W/s3" --gen 3 --to "$W/r" -q && [ ! -e "$W/r" ] || return 1
	head -c 1000000 "$W/s2" >"$W/cut"
	! snaprestore --from "$W/s1" "$W/cut" --gen 2 --to "$W/r" -q && [ ! -e "$W/r" ]
}

import() {
	snapmedia init "$W/repo2" && snapmedia import "$W/repo2" "$W/s1" &&
		! snapmedia import "$W/repo2" "$W/s3" && snapmedia import "$W/repo2" "$W/s2" &&
		snapmedia import "$W/repo2" - <"$W/s3" && same 3 "$W/repo2" && snapmedia verify "$W/repo2"
}

# Parts, at their places and to stdout; across holes, past the end; from both kinds of source. The server sends only them.
ranges() {
	local r=4096:8192,8M:20M,49999872:16M src
	python3 - "$W/g3" "$W/want" "$W/want.out" <<-'PY' || return 1
		import sys
		data = open(sys.argv[1], 'rb').read()
		parts = [(4096, 8192), (8 << 20, 20 << 20), (49999872, 16 << 20)]
		place, out = bytearray(len(data)), b''
		for at, n in parts:
		    place[at:at + n] = data[at:at + n]
		    out += data[at:at + n]
		open(sys.argv[2], 'wb').write(place)
		open(sys.argv[3], 'wb').write(out)
	PY
	for src in "$W/repo" "127.0.0.1:$PORT"; do
		rm -f "$W/r"
		snaprestore --from "$src" --volume disk --gen 3 --range $r --to "$W/r" -q && cmp "$W/r" "$W/want" || return 1
		snaprestore --from "$src" --volume disk --gen 3 --range $r --to - -q | cmp - "$W/want.out" || return 1
		snaprestore --from "$src" --volume disk --gen 3 --range 4096:4095 --to - -q
		[ $? = 1 ] || return 1
		snaprestore --from "$src" --volume disk --gen 3 --range 1G:4096 --to - -q && return 1
	done
	# what is proven comes in whole frames: here of two generations, besides the proof
	fetched 600000 && fetched 80000 --unproven
}

fetched() {	# BYTES [OPTION...]: that a small range is sent with at most
	snaprestore --from "127.0.0.1:$PORT" --volume disk --gen 3 --range 0:64K --to "$W/r2" --force -q "${@:2}" || return 1
	tail -1 "$W/log"
	[ "$(sed -n 's/.* end .* out=\([0-9]*\).*/\1/p' "$W/log" | tail -1)" -lt "$1" ]
}

# A target that was nearly right: exactly what differs is written.
diff_against_live() {
	local src
	for src in "$W/repo" "127.0.0.1:$PORT"; do
		cp "$W/g3" "$W/live"
		for at in 0 1 5000 12000; do
			head -c 4096 /dev/urandom | dd of="$W/live" bs=4096 seek=$at conv=notrunc status=none
		done
		head -c 100 /dev/urandom | dd of="$W/live" bs=1 seek=50123357 conv=notrunc status=none	# the last bytes
		snaprestore --from "$src" --volume disk --gen 3 --to "$W/live" --diff-against-live 2>"$W/err" || return 1
		cmp "$W/g3" "$W/live" || return 1
		tail -1 "$W/err"
		# four blocks, and the short one with the last 100 bytes
		grep -q " $((4 * 4096 + 50123457 - 50122752)) bytes differed" "$W/err" || return 1
		snaprestore --from "$src" --volume disk --gen 4 --to "$W/live" --diff-against-live 2>"$W/err" && cmp "$W/g4" "$W/live" || return 1
		snaprestore --from "$src" --volume disk --gen 4 --to "$W/live" --diff-against-live 2>"$W/err" &&
			grep -q " 0 bytes differed" "$W/err" || return 1
	done
	! snaprestore --from "$W/repo" --volume disk --gen 3 --to "$W/absent" --diff-against-live -q && [ ! -e "$W/absent" ]
}

receipt() {	# of each source; of parts; nothing on stdout that is not asked for
	local src
	for src in "$W/repo" "127.0.0.1:$PORT"; do
		rm -f "$W/r"
		snaprestore --from "$src" --volume disk --gen 3 --to "$W/r" -q --json >"$W/receipt" && cmp "$W/g3" "$W/r" || return 1
		cat "$W/receipt"
		[ "$(field generation <"$W/receipt")" = 3 ] && [ "$(field restored_bytes <"$W/receipt")" = 50123457 ] || return 1
		snaprestore --from "$src" --volume disk --gen 3 --manifest "$(field manifest <"$W/receipt")" --to "$W/r" --force -q --json \
			>"$W/receipt" && [ "$(field verified <"$W/receipt")" = manifests ] || return 1
		snaprestore --from "$src" --volume disk --gen 3 --to "$W/r" --force -q --json --range 0:8192 >"$W/receipt" &&
			[ "$(field restored_bytes <"$W/receipt")" = 8192 ] || return 1
	done
	snaprestore --from "127.0.0.1:$PORT" --volume disk --gen 3 --to "$W/r" --force -q --json --unproven >"$W/receipt" &&
		[ "$(field verified <"$W/receipt")" = frames ] || return 1
	refused 1 "stdout gets the image" snaprestore --from "$W/repo" --volume disk --gen 3 --to - --json
}

# Ended in the middle: no file, under no name. A link in the place of the unfinished file is not followed.
restore_killed() {
	local pid
	cat >"$W/stuck" <<-'EOT'
		#!/bin/bash
		# stands for ssh: a server that falls silent after 100 reads
		shift 2
		"$@" | { dd bs=65536 count=100 status=none; exec sleep 60; }
	EOT
	chmod +x "$W/stuck"
	rm -f "$W/r"
	SNAPDIFF_SSH=$W/stuck snaprestore --from "ssh://x$W/repo" --volume disk --gen 3 --to "$W/r" -q &
	pid=$!
	for _ in $(seq 200); do
		[ -s "$W/r.part" ] && break
		sleep 0.05
	done
	[ -s "$W/r.part" ] || return 1
	kill $pid
	wait $pid
	[ $? = 143 ] && [ ! -e "$W/r.part" ] && [ ! -e "$W/r" ] || return 1
	echo precious >"$W/other"
	ln -s other "$W/r.part"
	! snaprestore --from "$W/repo" --volume disk --gen 3 --to "$W/r" -q && [ "$(cat "$W/other")" = precious ] && rm "$W/r.part"
}

# kill -9 the server's session in mid-transfer, again and again; each run takes up where the last one was.
killed_and_resumed() {
	local total resumed size rc
	head -c 200M /dev/urandom >"$W/g20"
	size=$(stat -c %s "$W/g20")
	cat >"$W/slow" <<-EOT
		#!/bin/bash
		# stands for ssh: the server reads through a pipe that breaks after a while
		shift 2
		dd bs=65536 count=\$(cat $W/limit) status=none | "\$@"
	EOT
	chmod +x "$W/slow"
	for limit in 500 700 900 M; do		# reads of up to 64 KiB
		[ $limit = M ] && echo 99999999 >"$W/limit" || echo $limit >"$W/limit"
		SNAPDIFF_SSH=$W/slow back 20 "ssh://x$W/repo" 2>"$W/err"
		rc=$?
		[ $limit != M ] && { [ $rc = 0 ] && return 1; continue; }
		[ $rc = 0 ] || { cat "$W/err"; return 1; }
	done
	resumed=$(field resumed_bytes <"$W/receipt")
	total=$(field sent_bytes <"$W/receipt")
	echo "resumed $resumed of $size, the last run sent $total"
	[ "$resumed" -ge 20000000 ] && [ "$total" -le $((size - resumed + size / 50)) ] && same 20 "$W/repo"
}

# The daemon's session itself dies: kill -9 by a watcher as soon as it has some megabytes.
daemon_killed() {
	head -c 150M /dev/urandom >"$W/g21"
	back 21 "127.0.0.1:$PORT" 2>"$W/err" &
	local client=$! child
	for _ in $(seq 400); do
		child=$(pgrep -P "$DAEMON" | head -1)
		[ -n "$child" ] && [ "$(du -s "$W/repo/uploads" | cut -f1)" -gt 20000 ] && break
		sleep 0.01
	done
	kill -9 "$child" || return 1
	! wait $client || return 1
	[ -z "$(find "$W/repo/objects" -name 0000000021.manifest)" ] || return 1
	back 21 "127.0.0.1:$PORT" || { cat "$W/err"; return 1; }
	echo "resumed $(field resumed_bytes <"$W/receipt")"
	[ "$(field resumed_bytes <"$W/receipt")" -gt 10000000 ] && same 21 "127.0.0.1:$PORT"
}

at_once() {
	local p=() i
	for i in 31 32 33 34; do
		head -c 5M /dev/urandom >"$W/g$i"
		snapbackup --image "$W/g$i" --uuid "$U" --gen $i --dest "127.0.0.1:$PORT" -q >/dev/null &
		p+=($!)
	done
	for i in "${p[@]}"; do
		wait "$i" || return 1
	done
	[ "$(snapmedia list "$W/repo" -o generation --noheadings | grep -c '3[1-4]')" = 4 ]
}

verify() {
	stop || return 1
	snapmedia verify "$W/repo" || return 1
	local pack
	pack=$(find "$W/repo/objects" -name '*.pack' -size +1M | head -1)
	printf 'X' | dd of="$pack" bs=1 seek=500000 conv=notrunc status=none
	! snapmedia verify "$W/repo"
}

make_images
snapmedia init "$W/repo" && start "$W/repo" --listen 127.0.0.1:0 || { echo "Bail out! no server"; exit 1; }
ok "full over TCP, restored" full_tcp
ok "increment over TCP: at most 2 % more than what changed" increment_tcp
ok "an increment comes back as it is stored" restore_as_stored
ok "increment over ssh, grown volume" increment_ssh
ok "shrunk, and grown again, into a directory" shrunk_and_grown
ok "every generation is still the same" all_same
ok "restore to stdout" to_stdout
ok "parts of a generation" ranges
ok "a target that is nearly right: only what differs is written" diff_against_live
ok "wrong parent and a number that is taken are refused" wrong_parent
ok "the same generation again is no error" again_is_no_error
ok "nothing but loopback" not_loopback
ok "restore: existing file, unknown generation, mistyped device" refused_targets
ok "the receipt of a restore" receipt
ok "a restore that is ended leaves nothing, and follows no link" restore_killed
ok "dry run is exact" dry_run
ok "changes that are told" told_changes
ok "streams: chain, wrong order, cut off" streams
ok "import of streams" import
ok "connection cut three times: exactly the rest is sent" killed_and_resumed
ok "server killed in mid-transfer: not there, then resumed" daemon_killed
ok "four clients at once; verify finds one flipped byte" eval 'at_once && verify'
