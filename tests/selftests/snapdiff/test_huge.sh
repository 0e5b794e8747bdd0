#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1
# disks: 64G
# timeout: 240
#
# Discards and zeroes of many GiB: no generation is lost, no memory is eaten, nothing waits for ever.

. "${BASH_SOURCE%/*}/lib.sh"

anon() { awk '/^MemAvailable/ { print $2 }' /proc/meminfo; }
used_less_than() { local now; now=$(anon); out="$(($1 - now)) KiB used"; [ $(($1 - now)) -lt "$2" ]; }

L=$DISK1
need null_disk vd 256
for at in 0 200 30000 60000; do
	dd if=/dev/urandom of="$L" bs=1M seek=$at count=4 oflag=direct status=none
done
need works attach v "$L" /dev/vd --format
works create v
dd if=/dev/urandom of=/dev/mapper/v bs=1M seek=201 count=1 oflag=direct status=none
piece() { dd if="$1" bs=1M skip="$2" count=4 iflag=direct status=none | sha256sum; }
works activate v@1
dev=$out
for at in 0 200 30000 60000; do before[at]=$(piece "$dev" $at); done
mem=$(anon)

SECONDS=0
ok "discard of 64 GiB" quiet blkdiscard /dev/mapper/v
echo "# $SECONDS s"
ok "it takes no memory" used_less_than "$mem" 100000
ok "the generation is live" json 'd["generations"][0]["state"] == "live"' list v
for at in 0 200 30000 60000; do
	ok "the old bytes at $at MiB are readable" equal "$(piece "$dev" $at)" "${before[at]}"
done
ok "most of it was dropped" test "$(stat_of v discards_dropped)" -gt 0

# Zeroes are writes: 512 MiB of chunks that held zeroes, and the 8 MiB that did not.
SECONDS=0
ok "zeroes over 512 MiB" quiet blkdiscard -z -o 0 -l 512M /dev/mapper/v
echo "# $SECONDS s, $(stat_of v chunks_copied) copied, $(stat_of v chunks_zero) zero"
ok "they are zeroes" quiet cmp -n 536870912 /dev/zero /dev/mapper/v
ok "old zeroes took no data" test "$(stat_of v chunks_copied)" -lt 5000
for at in 0 200 30000; do
	ok "the old bytes at $at MiB are readable" equal "$(piece "$dev" $at)" "${before[at]}"
done
ok "they count as changed" json "2**29 <= sum(e['length'] for e in d['extents']) <= 2**29 + 4096" diff v@1 v
works deactivate "$dev"
ok "detach" works detach v
works attach v "$L" /dev/vd
works activate v@1
for at in 0 200 30000; do
	ok "after attach, too, at $at MiB" equal "$(piece "$out" $at)" "${before[at]}"
	out=/dev/snapvirt0
done
works deactivate v@1
works detach v
finish
