#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1 uml-6.12-debug
# timeout: 150
#
# A reader of a generation whose device takes long to answer (error recovery of one disk of several, a throttled backup) is in nobody's way: the in-memory tables
# are filled many times over meanwhile, writers do not stand still, and no generation is given up.
#
# Fails without spare_ready() in core/step.c: the table that the reader holds cannot be frozen a second time, and after 5 seconds of standing still all generations
# are given up.

. "${BASH_SOURCE%/*}/lib.sh"

# second_half TARGET...: of the primary; the first half answers at once
second_half()
{
	dmsetup suspend p && printf '0 %u linear /dev/slowp 0\n%u %u %s\n' "$half" "$half" "$half" "$*" | dmsetup reload p && dmsetup resume p
}

quick_writes()
{
	local start=$SECONDS

	dd if=/dev/urandom of=/dev/mapper/v bs=1M count=48 oflag=direct status=none || return 1
	out="$((SECONDS - start)) s"
	[ $((SECONDS - start)) -lt 4 ]
}

need null_disk slowp 128
need null_disk slowd 256
half=$(($(blockdev --getsz /dev/slowp) / 2))
need dmsetup create p --table "0 $((2 * half)) linear /dev/slowp 0"
need works format /dev/slowd
need dmsetup create v --table "0 $((2 * half)) snapdiff /dev/mapper/p /dev/slowd 2 mem_records 1024"
dd if=/dev/urandom of=/dev/mapper/v bs=1M count=128 oflag=direct status=none
before=$(sum /dev/mapper/v)
need works create v
need works activate v@1
need second_half delay /dev/slowp "$half" 12000 /dev/slowp "$half" 0
dd if=/dev/snapvirt0 of=/tmp/late bs=4k count=1 skip=$((half / 8 + 10)) iflag=direct status=none &
reader=$!
sleep 0.5
ok "writers do not wait for a slow reader" quick_writes
ok "no generation is given up for it" json 'd["generations"][0]["state"] == "live"' list v
ok "the reader gets his bytes" wait $reader
second_half linear /dev/slowp "$half"
ok "the generation is what it was" reads_as /dev/snapvirt0 "$before"
ok "deactivate" works deactivate v@1
ok "detach" works detach v
dmsetup remove p
finish
