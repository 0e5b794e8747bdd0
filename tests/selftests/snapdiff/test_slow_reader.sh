#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1 uml-6.12-debug
# timeout: 200
#
# A reader of a generation whose device takes long to answer (error recovery of one disk of several, a throttled backup) is in nobody's way: the in-memory tables
# are filled many times over meanwhile, writers do not stand still, and no generation is given up.
#
# Fails without spare_ready() in core/step.c: the table that the reader holds cannot be frozen a second time, and after 5 seconds of standing still all generations
# are given up. The same on a full diff, if the reader held his version while the primary answers: what is given up would not come back.

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

# late_reader BLOCK: one of 4 KiB of the second half
late_reader()
{
	dd if=/dev/snapvirt0 of=/tmp/late bs=4k count=1 skip=$((half / 8 + $1)) iflag=direct status=none &
	reader=$!
	sleep 0.5
}

# The same 4 MiB for one generation after the other: each that is given up has them for itself.
rounds()
{
	local i start=$SECONDS

	for ((i = 0; i < $1; i++)); do
		works create v || return 1
		dd if=/dev/urandom of=/dev/mapper/v bs=1M count=4 oflag=direct status=none || return 1
	done
	out="$((SECONDS - start)) s; $(snapctl list v)"
	[ $((SECONDS - start)) -lt 10 ]
}

only_the_oldest()
{
	json '[g["generation"] for g in d["generations"] if g["state"] == "lost"][:3] == [1, 2, 3] and d["generations"][3]["state"] == d["generations"][-1]["state"] == "live"' list v
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
late_reader 10
ok "writers do not wait for a slow reader" quick_writes
ok "no generation is given up for it" json 'd["generations"][0]["state"] == "live"' list v
ok "the reader gets his bytes" wait $reader
second_half linear /dev/slowp "$half"
ok "the generation is what it was" reads_as /dev/snapvirt0 "$before"
ok "deactivate" works deactivate v@1
ok "detach" works detach v

# A diff of 32 MiB, and more than twice as much is copied.
need second_half linear /dev/slowp "$half"
need null_disk smalld 32
need works format /dev/smalld
need dmsetup create v --table "0 $((2 * half)) snapdiff /dev/mapper/p /dev/smalld 2 mem_records 1024"
need rounds 3
before=$(sum /dev/mapper/v)
need works create v
need works activate v@4
need second_half delay /dev/slowp "$half" 12000 /dev/slowp "$half" 0
late_reader 20
ok "full: what is given up comes back while a slow reader waits for the primary" rounds 14
ok "full: only the oldest generations are given up" only_the_oldest
ok "full: the reader gets his bytes" wait $reader
second_half linear /dev/slowp "$half"
ok "full: the generation is what it was" reads_as /dev/snapvirt0 "$before"
ok "full: deactivate" works deactivate v@4
ok "full: detach" works detach v
dmsetup remove p
finish
