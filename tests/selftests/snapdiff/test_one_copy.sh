#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1
# timeout: 180
#
# One copy a chunk and interval, however many generations there are.

. "${BASH_SOURCE%/*}/lib.sh"
K=1500

# overwrite SEED: K chunks, the same ones each time, in an order of their own, in 1 to 8 sectors somewhere in the chunk
overwrite()
{
	python3 - "$1" $K <<-'END'
	import mmap, os, random, sys
	seed, k = int(sys.argv[1]), int(sys.argv[2])
	chunks = random.Random(42).sample(range(64 << 20 >> 12), k)
	r = random.Random(seed)
	r.shuffle(chunks)
	fd = os.open('/dev/mapper/v', os.O_RDWR | os.O_DIRECT)
	buf = mmap.mmap(-1, 4096)
	for c in chunks:
	    n = r.randint(1, 8)
	    buf.seek(0)
	    buf.write(r.randbytes(n * 512))
	    os.pwrite(fd, memoryview(buf)[:n * 512], c * 4096 + r.randint(0, 8 - n) * 512)
	END
}

copied() { stat_of v chunks_copied; }
cuts() { for ((g = 0; g < $1; g++)); do snapctl create v >/dev/null || return 1; done; }

need null_disk vp 64
need null_disk vd 256
dd if=/dev/urandom of=/dev/vp bs=1M count=64 oflag=direct status=none
need works attach v /dev/vp /dev/vd --format

overwrite 1
ok "no generation, no copy" equal "$(copied)" 0
works create v
one=$(sum /dev/mapper/v)
before=$(stat_of v diff_used)
overwrite 2
ok "one generation: as many copies as chunks" equal "$(copied)" $K
used1=$(($(stat_of v diff_used) - before))
overwrite 3
ok "writing them again copies nothing" equal "$(copied)" $K
ok "200 generations" cuts 200
many=$(sum /dev/mapper/v)
before=$(stat_of v diff_used)
overwrite 4
ok "200 generations: as many copies as chunks" equal "$(copied)" $((2 * K))
used200=$(($(stat_of v diff_used) - before))
echo "# the diff grew by $used1 bytes with 1 generation, $used200 with 200; data alone is $((K * 4096))"
ok "the data is on the diff once" test $used200 -ge $((K * 4096)) -a $used200 -lt $((K * 4096 + (1 << 20)))
overwrite 5
ok "writing them again copies nothing" equal "$(copied)" $((2 * K))
ok "the oldest generation reads as it was" generation v@1 "$one"
ok "one in the middle reads as it was" generation v@77 "$many"
ok "the newest reads as it was" generation v@201 "$many"
ok "nothing changed between those in the middle" json 'd["extents"] == []' diff v@2 v@201
ok "what changed since the newest" \
	json "sum(e['length'] for e in d['extents']) == $K * 4096" diff v@201 v
ok "what changed since the oldest" \
	json "sum(e['length'] for e in d['extents']) == $K * 4096" diff v@1 v
works delete v@2..200
ok "199 deleted, the rest reads as it was" generation v@1 "$one"
ok "199 deleted, the rest reads as it was" generation v@201 "$many"
overwrite 6
ok "a delete makes nothing be copied again" equal "$(copied)" $((2 * K))
works detach v
works attach v /dev/vp /dev/vd
overwrite 7
ok "nor does a detach" equal "$(copied)" 0
ok "the newest reads as it was" generation v@201 "$many"
works detach v
finish
