#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.12-debug
# disks: 64M 64M
# timeout: 120
#
# Memory in small pieces only: no allocation of 64 KiB in one piece succeeds. Everything that a volume does, and above all a clean detach, does without.
#
# Failed when the fingerprint read into one such piece: "detached without a checkpoint", and all generations were suspect afterwards.

. "${BASH_SOURCE%/*}/lib.sh"
fault=/sys/kernel/debug/fail_page_alloc

pieces_only()
{
	[ -d $fault ] || mount -t debugfs none /sys/kernel/debug
	echo 4 >$fault/min-order && echo N >$fault/ignore-gfp-wait && echo -1 >$fault/times && echo 0 >$fault/verbose && echo 100 >$fault/probability
}

need works attach v "$DISK1" "$DISK2" --format
need works create v
dd if=/dev/urandom of=/dev/mapper/v bs=1M count=8 oflag=direct status=none
ok "detach" works detach v
need pieces_only
ok "attach" works attach v "$DISK1" "$DISK2"
ok "create" works create v
dd if=/dev/urandom of=/dev/mapper/v bs=1M count=8 oflag=direct status=none
ok "activate" works activate v@1
ok "deactivate" works deactivate v@1
ok "detach" works detach v
echo 0 >$fault/probability
ok "attach again" works attach v "$DISK1" "$DISK2"
ok "nothing is lost, nothing suspect" json 'len(d["generations"]) == 2 and all(g["state"] == "live" and not g["suspect"] for g in d["generations"])' list v
ok "detach" works detach v
finish
