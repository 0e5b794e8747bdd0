#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1
# mem: 1500M
# timeout: 150
#
# A dump of extents that has much to look at and little to say, from a slow diff, is in nobody's way: it gives control back after each slice. (Looked at in one go
# all of it comes before the cut.)

. "${BASH_SOURCE%/*}/lib.sh"

slow()			# MS: each read of the diff
{
	dmsetup suspend slow && dmsetup load slow --table "0 $((64 * 2048)) delay /dev/dumpd 0 $1 /dev/dumpd 0 0" && dmsetup resume slow
}

cut_quickly()
{
	local start=$SECONDS

	works create v || return 1
	out="$((SECONDS - start)) s"
	echo "# cut: $out"
	kill -0 $dump && [ $((SECONDS - start)) -lt 4 ]
}

one_extent()
{
	out=$(cat /tmp/dump)
	[ "$out" = '{"extents":[{"offset":0,"length":536870912}]}' ]
}

need null_disk dumpp 512
need null_disk dumpd 64
need dmsetup create slow --table "0 $((64 * 2048)) delay /dev/dumpd 0 0"
need works attach v /dev/dumpp /dev/mapper/slow --format
need works create v
dd if=/dev/zero of=/dev/mapper/v bs=1M count=512 oflag=direct status=none
need works detach v
need works attach v /dev/dumpp /dev/mapper/slow
need slow 50
start=$SECONDS
snapctl diff v@1 v --json >/tmp/dump &
dump=$!
sleep 1
ok "a cut does not wait for the dump" cut_quickly
ok "the dump ends" wait $dump
echo "# dump: $((SECONDS - start)) s"
slow 0
ok "it is complete" one_extent
need works detach v
dmsetup remove slow
finish
