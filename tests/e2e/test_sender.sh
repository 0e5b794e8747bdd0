#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 400
# The sender by itself: other formats, what a dry run promises, rate.
. "$(dirname "$0")/media-lib.sh"

# back GEN DEST [OPTION...]
back() { snapbackup --image "$W/g$1" --uuid "$U" --volume-name disk --gen "$1" --dest "$2" -q "${@:3}"; }
# inc GEN BASE DEST [OPTION...]
inc() { back "$1" "$3" --base "$2" --base-image "$W/g$2" "${@:4}"; }
# is JQ-CONDITION < JSON: what is so
is() { jq -e "$1" >/dev/null; }

# 12 MiB and some bytes, a third of it zeros; what is scattered, cleared, grown and shrunk
images() {
	{ head -c 4M /dev/urandom; head -c 4M /dev/zero; tar c userspace module 2>/dev/null | head -c 4M; } >"$W/g1"
	truncate -s 12583013 "$W/g1"
	python3 - "$W" <<-'PY'
		import os, random, sys
		w, r = sys.argv[1], random.Random(5)
		data = bytearray(open(w + '/g1', 'rb').read())
		for g, size in ((2, 12583013), (3, 13000001), (4, 9000000)):
		    for b in r.sample(range(2000), 200):
		        data[b * 4096:b * 4096 + 4096] = os.urandom(4096) if b % 4 else bytes(4096)
		    data[1 << 20:(1 << 20) + 300000] = bytes(300000)
		    data = data[:size] + bytes(max(0, size - len(data)))
		    data[size - 50:] = os.urandom(50)
		    open('%s/g%d' % (w, g), 'wb').write(data)
	PY
}

# ---- formats ----

# Full and three increments (grown, shrunk) by a reader that knows only the description.
rbd_diff() {
	local g
	: >"$W/image"
	back 1 "$W/d1" --format rbd-diff && back 1 - --format rbd-diff 2>/dev/null | cmp - "$W/d1" || return 1
	tests/e2e/rbd-diff.py apply "$W/d1" "$W/image" >"$W/seen" && cmp "$W/g1" "$W/image" || return 1
	cat "$W/seen"
	is ".version == 1 and .from == null and .to == \"snapdiff-1\" and .size == 12583013 and .w + .z == .size and .z >= 4194304" <"$W/seen" || return 1
	for g in 2 3 4; do
		inc $g $((g - 1)) "$W/d$g" --format rbd-diff --json >"$W/receipt" || return 1
		tests/e2e/rbd-diff.py apply "$W/d$g" "$W/image" >"$W/seen" && cmp "$W/g$g" "$W/image" || return 1
		cat "$W/seen" "$W/receipt"
		is ".from == \"snapdiff-$((g - 1))\" and .to == \"snapdiff-$g\" and .w < 2000000 and .z > 0" <"$W/seen" || return 1
		[ "$(jq '.data_bytes, .zero_bytes' "$W/receipt")" = "$(jq '.w, .z' "$W/seen")" ] &&
			[ "$(jq .sent_bytes "$W/receipt")" = "$(stat -c %s "$W/d$g")" ] || return 1
	done
	rm -f "$W"/d?
}

# Ceph's own tool can join two diffs without a cluster: what it makes of ours is right too.
rbd_tool() {
	back 1 "$W/d1" --format rbd-diff && inc 2 1 "$W/d2" --format rbd-diff && rbd merge-diff "$W/d1" "$W/d2" "$W/d12" --no-progress || return 1
	: >"$W/image"
	tests/e2e/rbd-diff.py apply "$W/d12" "$W/image" && cmp "$W/g2" "$W/image" || return 1
	rm -f "$W"/d1 "$W"/d2 "$W"/d12
}

raw() {
	back 3 - --format raw 2>/dev/null | cmp - "$W/g3" || return 1
	back 3 "$W/r" --format raw && cmp "$W/r" "$W/g3" || return 1
	# zeros are holes
	[ $(($(stat -c %b "$W/r") * 512)) -lt 10000000 ] || return 1
	mkfifo "$W/fifo"
	cat "$W/fifo" >"$W/r2" &
	back 3 "$W/fifo" --format raw && wait $! && cmp "$W/r2" "$W/g3"
}

# Whoever writes into nothing says so; a file does not appear; a stream without its end is none.
write_errors() {
	local f rc
	for f in stream rbd-diff raw; do
		back 1 - --format $f 2>"$W/err" >/dev/full
		rc=$?
		[ $rc = 6 ] && grep -q "cannot .*: No space left" "$W/err" || { echo "full: $f: $rc"; cat "$W/err"; return 1; }
		back 1 - --format $f 2>"$W/err" | head -c 100000 >"$W/cut"
		rc=${PIPESTATUS[0]}
		[ "$rc" = 6 ] && grep -q "cannot .*: Broken pipe" "$W/err" || { echo "pipe: $f: $rc"; cat "$W/err"; return 1; }
		(ulimit -f 1000; trap '' XFSZ; back 1 "$W/big" --format $f 2>"$W/err")
		rc=$?
		[ $rc = 6 ] && [ ! -e "$W/big" ] && [ ! -e "$W/big.part" ] || { echo "file: $f: $rc"; return 1; }
	done
	back 1 - --format rbd-diff 2>/dev/null | head -c 100000 >"$W/cut"
	! tests/e2e/rbd-diff.py show "$W/cut"
}

# The image changes while it is read: no end, exit code, and no file.
source_changes() {
	local rc
	cp "$W/g1" "$W/g7"
	mkfifo "$W/slow"
	{ head -c 65536 >/dev/null; touch -d 2001-01-01 "$W/g7"; cat; } <"$W/slow" >"$W/rest" &
	back 7 "$W/slow" --format rbd-diff 2>"$W/err"
	rc=$?
	wait $!
	cat "$W/err"
	[ $rc = 6 ] && grep -q "was changed while it was read" "$W/err" || return 1
	back 1 - --format rbd-diff 2>/dev/null | tail -c +65537 >"$W/whole"
	# all of it but the last byte
	[ "$(stat -c %s "$W/rest")" = $(($(stat -c %s "$W/whole") - 1)) ]
}

formats_refused() {
	local rc
	snapmedia init "$W/repo" || return 1
	back 1 "$W/repo" --format rbd-diff 2>"$W/err"
	rc=$?
	[ $rc = 1 ] && grep -q "only a file or - takes another format" "$W/err" || return 1
	back 1 "$W/x" --format raw --base none && inc 2 1 "$W/y" --format raw
	rc=$?
	[ $rc = 1 ] && [ ! -e "$W/y" ] || return 1
	back 1 "$W/x" --format raw
	rc=$?
	[ $rc = 5 ] || return 1
	back 1 "$W/x" --format raw --force && back 1 "$W/y" --format nosuch
	rc=$?
	[ $rc = 1 ] && [ ! -e "$W/y" ] || return 1
	# another one is at it: neither spoiled nor taken over
	printf x >"$W/z.part"
	flock -n "$W/z.part" snapbackup --image "$W/g1" --uuid "$U" --gen 1 --dest "$W/z" -q --format raw 2>"$W/err"
	rc=$?
	[ $rc = 5 ] && grep -q "somebody else" "$W/err" && [ ! -e "$W/z" ] && [ "$(cat "$W/z.part")" = x ] || return 1
	# one that a crash has left
	back 1 "$W/z" --format raw && cmp "$W/z" "$W/g1" && [ ! -e "$W/z.part" ] || return 1
	# the same of a restore
	back 1 "$W/z.snap" && printf x >"$W/z1.part" || return 1
	flock -n "$W/z1.part" snaprestore --from "$W/z.snap" --to "$W/z1" -q 2>"$W/err"
	rc=$?
	[ $rc = 5 ] && grep -q "somebody else" "$W/err" && [ ! -e "$W/z1" ] && [ "$(cat "$W/z1.part")" = x ] || return 1
	snaprestore --from "$W/z.snap" --to "$W/z1" -q && cmp "$W/z1" "$W/g1" && [ ! -e "$W/z1.part" ]
}

# ---- a dry run ----

# To the byte: what it says is what then goes out, for every format, full and increment.
measured() {
	local f d
	snapmedia init "$W/repo2" || return 1
	for f in rbd-diff raw; do
		d=$(back 1 - --format $f --dry-run --measure --json | jq .sent_bytes)
		[ "$d" = "$(back 1 - --format $f 2>/dev/null | wc -c)" ] || { echo "$f: $d"; return 1; }
	done
	back 1 "$W/repo2" --dry-run --measure --json >"$W/plan" && back 1 "$W/repo2" --json >"$W/receipt" || return 1
	[ "$(jq '.bytes, .data_bytes, .zero_bytes, .frames, .payload_bytes' "$W/plan")" = \
	  "$(jq '.change_bytes, .data_bytes, .zero_bytes, .frames, .payload_bytes' "$W/receipt")" ] || { cat "$W/plan" "$W/receipt"; return 1; }
	inc 2 1 "$W/repo2" --dry-run --measure --json >"$W/plan" && inc 2 1 "$W/repo2" --json --compress 9 >"$W/receipt" || return 1
	# Another level: the same but for the compressed size
	[ "$(jq '.bytes, .data_bytes, .zero_bytes, .frames' "$W/plan")" = \
	  "$(jq '.change_bytes, .data_bytes, .zero_bytes, .frames' "$W/receipt")" ] || return 1
	is '.base == 1 and .reason == "asked for" and ([.extents[].length] | add) == .bytes' <"$W/plan" || return 1
	inc 2 1 "$W/repo2" --dry-run --measure | tail -1 | grep -q "bytes in frames, compressed"
}

# Levels are levels, and 0 is none.
compress() {
	local n0 n1 n19
	n0=$(back 1 - --dry-run --measure --json --compress 0 | jq '.payload_bytes, .data_bytes') || return 1
	n1=$(back 1 - --dry-run --measure --json --compress 1 | jq .payload_bytes)
	n19=$(back 1 - --dry-run --measure --json --compress 19 | jq .payload_bytes)
	echo $n0 $n1 $n19
	[ "${n0%$'\n'*}" -gt "${n0#*$'\n'}" ] && [ "$n1" -lt "${n0%$'\n'*}" ] && [ "$n19" -lt "$n1" ]
}

# Several read ahead of the writer, on one processor too: while nobody takes what is written, there are two threads at least beside it.
threads() {
	local pid n=0
	mkfifo "$W/held"
	exec 9<>"$W/held"
	snapbackup --image "$W/g1" --uuid "$U" --gen 1 --dest "$W/held" --format raw -q >/dev/null &
	pid=$!
	for _ in $(seq 200); do
		n=$(ls "/proc/$pid/task" | wc -l)
		[ "$n" -ge 3 ] && break
		sleep 0.05
	done
	echo "$n threads"
	kill $pid
	timeout 20 cat <&9 >/dev/null &	# it is in a write: let it go on and see that it is to end
	wait $pid
	local rc=$?
	kill $!
	exec 9<&-
	echo "status $rc"
	[ "$n" -ge 3 ] && [ $rc = 6 ]
}

# 6 MiB at 4 MiB/s are not there before 1.4 s; without a limit the same goes over at once.
rate() {
	local t
	head -c 6M /dev/urandom >"$W/g8"
	t=$(date +%s%N)
	back 8 - --rate 4M 2>/dev/null | wc -c || return 1
	t=$((($(date +%s%N) - t) / 1000000))
	echo "$t ms"
	[ $t -ge 1400 ]
}

begin 18
# ---- comparing ----

# differing A B: bytes of B's blocks that A does not have the same
differing() {
	python3 - "$1" "$2" <<-'PY'
		import sys
		a, b = (open(x, 'rb').read() for x in sys.argv[1:])
		print(sum(len(b[i:i + 4096]) for i in range(0, len(b), 4096) if a[i:i + 4096] != b[i:i + 4096]))
	PY
}

same() {	# GEN SOURCE
	local volume="--volume disk"
	[ -f "$2" ] && volume=
	rm -f "$W/back"
	# shellcheck disable=SC2086
	snaprestore --from "$2" $volume --gen "$1" --to "$W/back" -q && cmp "$W/g$1" "$W/back"
}

# Nothing here knows what changed: exactly what differs is sent, and the result is an increment like any other.
compared() {	# DEST: generations 2 to 4 of it, on what is there
	local g n
	for g in 2 3 4; do
		snapbackup --image "$W/g$g" --uuid "$U" --volume-name disk --gen $g --dest "$1" --json >"$W/receipt" 2>"$W/err" || { cat "$W/err"; return 1; }
		cat "$W/err" "$W/receipt"
		grep -q "increment on $((g - 1)), found by comparing: there is no older generation or bookmark" "$W/err" || return 1
		n=$(differing "$W/g$((g - 1))" "$W/g$g")
		is ".base == $((g - 1)) and .compared and .change_bytes == $n and .sent_bytes < $n + 200000" <"$W/receipt" || return 1
		same $g "$1" || return 1
	done
}

compared_here() {
	snapmedia init "$W/repo3" && back 1 "$W/repo3" && compared "$W/repo3" && snapmedia verify "$W/repo3"
}

compared_there() {
	snapmedia init "$W/repo4" && start "$W/repo4" --listen 127.0.0.1:0 && back 1 "127.0.0.1:$PORT" && compared "127.0.0.1:$PORT" &&
		stop && snapmedia verify "$W/repo4" && same 3 "$W/repo4"
}

# On one of several, though the change list is known; a dry run says the same.
compared_on_demand() {
	local n
	n=$(differing "$W/g2" "$W/g8")
	back 8 "$W/repo3" --compare --base 2 --dry-run --json >"$W/plan" && back 8 "$W/repo3" --compare --base 2 --json >"$W/receipt" || return 1
	is ".bytes == $n and .base == 2" <"$W/plan" && is ".base == 2 and .compared and .change_bytes == $n" <"$W/receipt" && same 8 "$W/repo3" || return 1
	cp "$W/g8" "$W/g9"
	refused 4 "has no generation 7" back 9 "$W/repo3" --compare --base 7 || return 1
	refused 1 "only a media server can be compared with" back 9 "$W/s" --compare || return 1
	# the same content: an increment of nothing
	back 9 "$W/repo3" --json >"$W/receipt" && is '.base == 8 and .change_bytes == 0 and .sent_bytes < 10000' <"$W/receipt" && same 9 "$W/repo3"
}

# Cut off in the middle of sending: comparing again gives the same list, and the rest is sent.
compared_resumed() {
	cp "$W/g9" "$W/g10"
	head -c 5M /dev/urandom | dd of="$W/g10" bs=64k seek=10 conv=notrunc status=none
	printf '#!/bin/sh\nshift 2\ndd bs=65536 count=70 status=none | "$@"\n' >"$W/broken"
	printf '#!/bin/sh\nshift 2\nexec "$@"\n' >"$W/whole"
	chmod +x "$W/broken" "$W/whole"
	! SNAPDIFF_SSH=$W/broken back 10 "ssh://x$W/repo3" || return 1
	SNAPDIFF_SSH=$W/whole back 10 "ssh://x$W/repo3" --json >"$W/receipt" || return 1
	cat "$W/receipt"
	is '.base == 9 and .compared and .state == "resumed" and .resumed_bytes > 500000' <"$W/receipt" && same 10 "$W/repo3"
}

# Many windows and requests: 200 MiB, mostly holes, with a block in every third unit of 256 KiB and 1000 blocks side by side.
compared_large() {
	python3 - "$W" <<-'PY'
		import os, random, sys
		r = random.Random(6)
		at = [(i << 18) + 4096 * r.randrange(64) for i in range(0, 800, 3)] + [(100 << 20) + 4096 * i for i in range(1000)]
		for g in (20, 21):
		    with open('%s/g%d' % (sys.argv[1], g), 'wb') as f:
		        f.truncate(200 << 20)
		        for x in at if g == 20 else at[::2]:
		            f.seek(x)
		            f.write(bytes(4000) + os.urandom(96))
		os.system('cp --sparse=always %s/g20 %s/tmp' % (sys.argv[1], sys.argv[1]))
		with open(sys.argv[1] + '/tmp', 'r+b') as f:
		    for x in at[::2]:
		        f.seek(x)
		        f.write(bytes(4000) + os.urandom(96))
		os.rename(sys.argv[1] + '/tmp', sys.argv[1] + '/g21')
	PY
	local n
	n=$(differing "$W/g20" "$W/g21")
	snapmedia init "$W/repo7" && start "$W/repo7" --listen 127.0.0.1:0 && back 20 "127.0.0.1:$PORT" &&
		back 21 "127.0.0.1:$PORT" --json >"$W/receipt" || return 1
	cat "$W/receipt"
	is ".base == 20 and .compared and .change_bytes == $n and .sent_bytes < 200000" <"$W/receipt" && same 21 "127.0.0.1:$PORT" || return 1
	cp --sparse=always "$W/g21" "$W/g22"
	inc 22 21 "127.0.0.1:$PORT" --audit 100% --json >"$W/receipt" && is ".audited_bytes == .size and .change_bytes == 0" <"$W/receipt" && stop || return 1
	rm -rf "$W"/g2? "$W/repo7"
}

# A change list that misses a block (the base's image is not what was sent as that generation): found before anything is sent.
audit() {
	snapmedia init "$W/repo5" && back 1 "$W/repo5" && cp "$W/g2" "$W/right" || return 1
	head -c 4096 /dev/urandom | dd of="$W/g2" bs=4096 seek=2900 conv=notrunc status=none
	cp "$W/g1" "$W/g1.right"
	dd if="$W/g2" of="$W/g1" bs=4096 skip=2900 seek=2900 count=1 conv=notrunc status=none
	refused 7 "AUDIT: 1 blocks differ from generation 1 .* at offset $((2900 * 4096)):" inc 2 1 "$W/repo5" --audit 100% || return 1
	refused 7 "AUDIT: 1 blocks" inc 2 1 "$W/repo5" --audit 100 --dry-run || return 1
	[ "$(snapmedia list "$W/repo5" -n -o generation | xargs)" = 1 ] && [ -z "$(ls "$W/repo5/uploads")" ] || return 1
	# without it the wrong increment goes over: that is what it is for
	inc 2 1 "$W/repo5" && ! same 2 "$W/repo5" || return 1
	mv "$W/g1.right" "$W/g1"
}

# What is right passes; at least one piece is looked at, and about as much as asked for.
audit_passes() {
	mv "$W/right" "$W/g2"
	snapmedia init "$W/repo6" && back 1 "$W/repo6" || return 1
	inc 2 1 "$W/repo6" --audit 0.001 --json >"$W/receipt" && is '.audited_bytes >= 4096 and .base == 1 and (.compared | not)' <"$W/receipt" || return 1
	inc 3 2 "$W/repo6" --audit 100% --json >"$W/receipt" || return 1
	cat "$W/receipt"
	# all of it: what is unchanged, the changes, and what has grown
	is ".audited_bytes + .change_bytes == .size" <"$W/receipt" || return 1
	same 3 "$W/repo6" && refused 1 "from 0.001 to 100" inc 3 2 "$W/repo6" --audit 101
}

# ---- and back ----

sparse() {	# from a directory, a server, a stream; holes where there were none on disk
	cp --sparse=never "$W/g1" "$W/g30"
	snapmedia init "$W/repo8" && start "$W/repo8" --listen 127.0.0.1:0 && back 30 "$W/repo8" && back 30 "$W/stream" || return 1
	local from
	for from in "$W/repo8" "127.0.0.1:$PORT" "$W/stream"; do
		same 30 "$from" || return 1
		echo "$(stat -c '%s %b' "$W/back")"
		[ $(($(stat -c %b "$W/back") * 512)) -le $((12583013 - (4 << 20) + 65536)) ] || return 1
	done
	stop
}

images || { echo "Bail out! no images"; exit 1; }
ok "rbd diff: full and increments, grown and shrunk" rbd_diff
if command -v rbd >/dev/null; then
	ok "rbd merge-diff takes it" rbd_tool
else
	N=$((N + 1))
	echo "ok $N rbd merge-diff takes it # SKIP no rbd"
fi
ok "raw: pipe, sparse file, fifo" raw
ok "a failed write is an error, and no file is left" write_errors
ok "a source that changes: no end is written" source_changes
ok "formats are for files only; raw has no base" formats_refused
ok "a dry run is exact to the byte" measured
ok "compression levels" compress
ok "rate" rate
ok "several threads read ahead; told to end, it ends" threads
ok "nothing known here: compared with what is there, grown and shrunk" compared_here
ok "the same over TCP" compared_there
ok "compared on demand; nothing changed" compared_on_demand
ok "comparing, cut off and resumed" compared_resumed
ok "comparing in many requests" compared_large
ok "audit: a missed change is found, and nothing is sent" audit
ok "audit: what is right passes" audit_passes
ok "a restored file is sparse" sparse
