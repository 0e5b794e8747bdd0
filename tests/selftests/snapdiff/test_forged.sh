#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1 uml-6.12-debug
# disks: 64M 64M
# timeout: 120
#
# A differential volume whose checksums are right and which lies: a generation of nearly 8 EiB on a volume of 64 MiB is neither made a disk nor mapped; what is
# true of the store can be used.
#
# Without snap_gen_fits() /dev/snapvirt0 has 9223372036854775296 bytes.

. "${BASH_SOURCE%/*}/lib.sh"

# forge DIFF DUMP: a dump of DIFF with another size of generation 1, and the checksum that belongs to it
forge()
{
	snapmeta dump --records "$1" | python3 -c "
import re, sys
lines = sys.stdin.read().splitlines(True)
lines = [re.sub('\"size\":[0-9]+', '\"size\":9223372036854775296', l) if '\"generation\":1,' in l else l for l in lines]
crc = 0xffffffff
for byte in ''.join(lines[:-1]).encode():
    crc ^= byte
    for _ in range(8):
        crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
sys.stdout.write(''.join(lines[:-1]) + re.sub('\"crc32c\":[0-9]+', '\"crc32c\":%u' % crc, lines[-1]))" >"$2"
}

need works attach v "$DISK1" "$DISK2" --format
need works create v
dd if=/dev/urandom of=/dev/mapper/v bs=1M count=1 oflag=direct status=none
need works create v
before=$(sum /dev/mapper/v)
need works detach v
need forge "$DISK2" /tmp/forged
need quiet snapmeta restore --input /tmp/forged --output "$DISK2"
ok "attach" works attach v "$DISK1" "$DISK2"
ok "it is there" json 'd["generations"][0]["size"] == 9223372036854775296' list v
ok "not as a disk" refused 6 "v@1: cannot activate: is damaged" activate v@1
ok "not as a map" refused 6 "is damaged" map v@1
ok "the other one is as it was" generation v@2 "$before"
ok "it can be deleted" works delete v@1
ok "detach" works detach v
finish
