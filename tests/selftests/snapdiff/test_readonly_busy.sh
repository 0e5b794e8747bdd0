#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1 uml-6.12-debug
# disks: 32M 64M
# timeout: 120
#
# A generation cannot be written; what is in use cannot be taken away; what is taken away under load says so.

. "${BASH_SOURCE%/*}/lib.sh"
P=$DISK1 D=$DISK2
dd if=/dev/urandom of=$P bs=1M count=32 oflag=direct status=none
need works attach v $P $D --format
works create v
g1=$(sum /dev/mapper/v)
dd if=/dev/urandom of=/dev/mapper/v bs=64k count=100 oflag=direct status=none
works activate v@1
dev=$out

ok "it says it is read-only" equal "$(blockdev --getro "$dev")" 1
ok "a direct write fails" fails dd if=/dev/zero of="$dev" bs=4k count=1 oflag=direct
ok "a buffered write fails" fails dd if=/dev/zero of="$dev" bs=4k count=1 conv=fsync
ok "a discard fails" fails blkdiscard "$dev"
ok "zeroing fails" fails blkdiscard -z "$dev"
# The flag of the disk can be taken away; the disk says no by itself.
blockdev --setrw "$dev" 2>/dev/null
ok "a write fails without the flag, too" fails dd if=/dev/zero of="$dev" bs=4k count=1 oflag=direct
ok "a discard fails without the flag, too" fails blkdiscard -f "$dev"
ok "the generation is as it was" reads_as "$dev" "$g1"

ok "the module cannot be unloaded while attached" fails rmmod snapdiff
exec 9<"$dev"
ok "an open generation cannot be deactivated" refused 5 "" deactivate "$dev"
ok "nor deleted" refused 5 "" delete v@1
ok "nor its volume detached" refused 5 "" detach v
ok "nor the device removed with dmsetup" fails dmsetup remove v
ok "nor the module unloaded" fails rmmod snapdiff
ok "it still reads as it was" reads_as "$dev" "$g1"
exec 9<&-
works deactivate "$dev"

# A mounted volume and a loaded one.
mkdir -p /tmp/m
mkfs.ext4 -q /dev/mapper/v
mount /dev/mapper/v /tmp/m
ok "a mounted volume is not detached" refused 5 "mounted" detach v
umount /tmp/m
fio --name=load --filename=/dev/mapper/v --rw=randrw --bs=4k --ioengine=libaio --iodepth=32 --direct=1 --size=32m \
	--time_based --runtime=6 --thread --output=/tmp/fio.out >/dev/null 2>&1 &
fio=$!
sleep 2
ok "detach under load says why not" refused 5 "" detach v
ok "create under load" works create v
last=$out
works activate "$last"
s1=$(sum "$out")
s2=$(sum "$out")
ok "a generation cut under load does not change" equal "$s1" "$s2"
wait $fio
ok "the load saw no error" test $? -eq 0
ok "and it still does not" reads_as /dev/snapvirt0 "$s1"
works deactivate "$last"
ok "detach" works detach v
ok "the module is not in use" equal "$(cat /sys/module/snapdiff/refcnt)" 0
works attach v $P $D
ok "the generation cut under load is as it was" generation "$last" "$s1"
works detach v
finish
