#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 120
# A generation as an NBD disk: all of it, parts at random, its holes; and what must not happen meanwhile.
. "$(dirname "$0")/media-lib.sh"
NBDKIT=

at_end() {
	[ -n "$NBDKIT" ] && kill "$NBDKIT" 2>/dev/null
}

[ -e build/nbdkit-snapmedia-plugin.so ] || { echo "1..0 # SKIP no nbdkit-plugin-dev"; exit 4; }
begin 7

# Generation 3 is made of three layers, has holes, and ends inside a block; sectors of 512 it has.
images() {
	{ head -c 6M /dev/urandom; head -c 8M /dev/zero; tar c userspace | head -c 2M; } >"$W/g1"
	truncate -s 20972032 "$W/g1"
	cp --sparse=never "$W/g1" "$W/g2"
	python3 - "$W" <<-'PY'
		import os, random, sys
		w = sys.argv[1]
		r = random.Random(3)
		for g in (2, 3):
		    data = bytearray(open('%s/g%d' % (w, g - 1), 'rb').read())
		    for _ in range(300):
		        at = r.randrange(len(data) - 5000)
		        data[at:at + 3000] = os.urandom(3000) if r.randrange(3) else bytes(3000)
		    open('%s/g%d' % (w, g), 'wb').write(data)
	PY
	snapmedia init "$W/repo" && back 1 && back 2 1 && back 3 2
}

back() {	# GEN [BASE]
	snapbackup --image "$W/g$1" --uuid "$U" --volume-name disk --gen "$1" --dest "$W/repo" -q ${2:+--base "$2" --base-image "$W/g$2"} >/dev/null
}

export_run() {	# GEN COMMAND
	snapmedia export "$W/repo" "disk@$1" --run "$2"
}

by_nbdcopy() {
	for g in 1 2 3; do
		rm -f "$W/r"
		export_run $g "nbdcopy \"\$uri\" $W/r" && cmp "$W/g$g" "$W/r" || return 1
	done
}

by_qemu_img() {
	export_run 3 "qemu-img convert -f raw \"\$uri\" -O qcow2 $W/r.qcow2" && qemu-img compare -f raw -F qcow2 "$W/g3" "$W/r.qcow2"
}

holes() {	# where the image has 8 MiB of zeros nothing is transferred: the map says so
	export_run 1 "nbdinfo --map --json \"\$uri\"" >"$W/map" || return 1
	jq -e '[.[] | select(.type == 3) | .length] | add >= 8388608' "$W/map" && jq -e '[.[].length] | add == 20972032' "$W/map"
}

# NBD by hand: connect to a socket, read, leave.
cat >"$W/bynbd.py" <<'PY'
import socket, struct

class Disk:
    def __init__(self, path):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.connect(path)
        assert self.get(16) == b'NBDMAGICIHAVEOPT'
        self.get(2)
        self.s.sendall(struct.pack('>I', 3) + b'IHAVEOPT' + struct.pack('>II', 1, 0))	# EXPORT_NAME, no zeroes
        self.size, self.flags = struct.unpack('>QH', self.get(10))

    def get(self, n):
        b = b''
        while len(b) < n:
            x = self.s.recv(n - len(b))
            assert x, 'closed'
            b += x
        return b

    def read(self, at, n):
        self.s.sendall(struct.pack('>IHHQQI', 0x25609513, 0, 0, at, at, n))
        magic, err, cookie = struct.unpack('>IIQ', self.get(16))
        assert (magic, err, cookie) == (0x67446698, 0, at), (hex(magic), err, cookie)
        return self.get(n)

    def write(self, at, data):
        self.s.sendall(struct.pack('>IHHQQI', 0x25609513, 0, 1, at, at, len(data)) + data)
        return struct.unpack('>IIQ', self.get(16))[1]

    def leave(self):
        self.s.sendall(struct.pack('>IHHQQI', 0x25609513, 0, 2, 2, 0, 0))
PY

at_random() {
	cat >"$W/random.py" <<-'PY'
		import random, sys
		sys.path.insert(0, sys.argv[1])
		from bynbd import Disk
		want = open(sys.argv[1] + '/g3', 'rb').read()
		d = Disk(sys.argv[2].split('socket=')[1])
		assert d.size == len(want) and d.flags & 2, (d.size, d.flags)		# read-only
		r = random.Random(7)
		for i in range(500):
		    at = r.randrange(len(want))
		    n = min(r.choice((1, 512, 4096, 70000, 400000)), len(want) - at)
		    assert d.read(at, n) == want[at:at + n], (at, n)
		assert d.write(0, b'x' * 512) == 1		# EPERM
		d.leave()
	PY
	export_run 3 "python3 $W/random.py $W \"\$uri\""
}

not_pruned_while_open() {
	snapmedia export "$W/repo" disk@1 --unix "$W/sock" &
	NBDKIT=$!
	for _ in $(seq 100); do
		[ -S "$W/sock" ] && break
		sleep 0.05
	done
	# A connection that stays open, having read a little
	hold &
	local holder=$!
	for _ in $(seq 100); do
		[ -e "$W/held" ] && break
		sleep 0.05
	done
	snapmedia prune "$W/repo" --keep-last 1 --apply --json >"$W/plan" || return 1
	cat "$W/plan"
	touch "$W/release"
	wait $holder || return 1
	[ "$(jq -c '[.generations[] | [.generation, .action, .reason]]' "$W/plan")" = '[[3,"keep","keep-last"],[2,"removed",null],[1,"keep","is being read"]]' ] ||
		return 1
	kill $NBDKIT
	wait $NBDKIT
	NBDKIT=
	snapmedia prune "$W/repo" --keep-last 1 --apply && [ "$(snapmedia list "$W/repo" -o generation -n | xargs)" = 3 ]
}

hold() {	# open a connection, wait, then read the first bytes and compare
	python3 - "$W" <<-'PY'
		import os, sys, time
		w = sys.argv[1]
		sys.path.insert(0, w)
		from bynbd import Disk
		d = Disk(w + '/sock')
		open(w + '/held', 'w')
		while not os.path.exists(w + '/release'):
		    time.sleep(0.05)
		assert d.read(0, 65536) == open(w + '/g1', 'rb').read(65536)
		d.leave()
	PY
}

damage_is_an_error() {	# not other bytes
	local pack
	pack=$(find "$W/repo/objects" -name '*.pack' -size +1M | head -1)
	python3 - "$pack" <<-'PY'
		import sys
		f = open(sys.argv[1], 'r+b')
		f.seek(3000000)
		b = f.read(64)
		f.seek(3000000)
		f.write(bytes(x ^ 1 for x in b))
	PY
	rm -f "$W/r"
	! export_run 3 "nbdcopy \"\$uri\" $W/r"
}

not_there() {
	! export_run 77 true && ! snapmedia export "$W/repo" "nosuch@3" --run true && ! snapmedia export "$W/repo" "disk" --run true
}

images || { echo "Bail out! no repository"; exit 1; }
ok "nbdcopy: three generations" by_nbdcopy
ok "qemu-img convert" by_qemu_img
ok "holes are told" holes
ok "parts at random" at_random
ok "what is not there is refused" not_there
ok "an open generation is not pruned" not_pruned_while_open
ok "damage is an error, not other bytes" damage_is_an_error
