#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 180
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
rbd_diff() {		# FORMAT VERSION
	local g
	: >"$W/image"
	back 1 "$W/d1" --format "$1" && back 1 - --format "$1" 2>/dev/null | cmp - "$W/d1" || return 1
	tests/e2e/rbd-diff.py apply "$W/d1" "$W/image" >"$W/seen" && cmp "$W/g1" "$W/image" || return 1
	cat "$W/seen"
	is ".version == $2 and .from == null and .to == \"snapdiff-1\" and .size == 12583013 and .w + .z == .size and .z >= 4194304" <"$W/seen" || return 1
	for g in 2 3 4; do
		inc $g $((g - 1)) "$W/d$g" --format "$1" --json >"$W/receipt" || return 1
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
	local f
	for f in rbd-diff rbd-diff2; do
		back 1 "$W/d1" --format $f && inc 2 1 "$W/d2" --format $f && rbd merge-diff "$W/d1" "$W/d2" "$W/d12" --no-progress || return 1
		: >"$W/image"
		tests/e2e/rbd-diff.py apply "$W/d12" "$W/image" && cmp "$W/g2" "$W/image" || return 1
		rm -f "$W"/d1 "$W"/d2 "$W"/d12
	done
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
	{ head -c 65536 >/dev/null; touch "$W/g7"; cat; } <"$W/slow" >"$W/rest" &
	back 7 "$W/slow" --format rbd-diff 2>"$W/err"
	rc=$?
	wait $!
	cat "$W/err"
	[ $rc = 6 ] && grep -q "was changed while it was read" "$W/err" || return 1
	back 1 - --format rbd-diff 2>/dev/null | tail -c +65537 >"$W/whole"
	# all of it but the last byte
	[ "$(stat -c %s "$W/rest")" = $(($(stat -c %s "$W/whole") - 1)) ]
}

refused() {
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
	[ $rc = 1 ] && [ ! -e "$W/y" ]
}

# ---- a dry run ----

# To the byte: what it says is what then goes out, for every format, full and increment.
measured() {
	local f d
	snapmedia init "$W/repo2" || return 1
	for f in rbd-diff rbd-diff2 raw; do
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

begin 10
images || { echo "Bail out! no images"; exit 1; }
ok "rbd diff, version 1: full and increments, grown and shrunk" rbd_diff rbd-diff 1
ok "rbd diff, version 2" rbd_diff rbd-diff2 2
if command -v rbd >/dev/null; then
	ok "rbd merge-diff takes it" rbd_tool
else
	N=$((N + 1))
	echo "ok $N rbd merge-diff takes it # SKIP no rbd"
fi
ok "raw: pipe, sparse file, fifo" raw
ok "a failed write is an error, and no file is left" write_errors
ok "a source that changes: no end is written" source_changes
ok "formats are for files only; raw has no base" refused
ok "a dry run is exact to the byte" measured
ok "compression levels" compress
ok "rate" rate
