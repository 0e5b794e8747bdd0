#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1 uml-6.12-debug
#
# A device with request queues gets the writes that a group releases in one go: what lies side by side becomes one request, as it does without us.
# Without the plug around a commit (group.c) there is one request for each 4 KiB.

. "${BASH_SOURCE%/*}/lib.sh"

# requests: of writes, so far, on the primary
requests() { awk '{ print $5 }' /sys/block/vp/stat; }

# small_writes: the volume from end to end in writes of 4 KiB, 128 at a time
small_writes()
{
	fio --name=w --filename=/dev/mapper/v --direct=1 --rw=write --bs=4k --ioengine=libaio --iodepth=256 --iodepth_batch_submit=128 \
		--iodepth_batch_complete_min=64 --iodepth_batch_complete_max=256 --output=/tmp/fio
}

need null_disk vp 64 queue_mode=2
need null_disk vd 256 queue_mode=2
dd if=/dev/urandom of=/dev/vp bs=1M count=64 oflag=direct status=none
need works attach v /dev/vp /dev/vd --format
works create v
old=$(sum /dev/mapper/v)
before=$(requests)
ok "first writes, 16384 of 4 KiB" small_writes
sent=$(($(requests) - before))
ok "each has been copied" equal "$(stat_of v chunks_copied)" 16384
echo "# $sent requests"
ok "they reach the primary in large requests" test $sent -lt 4096
ok "the generation is what it was" generation v@1 "$old"
works detach v
finish
