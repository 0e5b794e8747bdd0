#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1
# timeout: 120
#
# A device is taken away under load: the differential volume (the primary goes on), the primary (errors, no hang). Everything can be taken down afterwards,
# and the module unloaded. On the stock kernel the device is a SCSI disk that is deleted, in UML a null_blk whose power goes.
#
# Shown to fail: writes that are released after the store has failed end with an error (release() in cow.c).

. "${BASH_SOURCE%/*}/lib.sh"

scsi=
case "$KERNEL" in debian-*) scsi=1 ;; esac

# A disk that can go: $gone is its path.
goner()
{
	if [ -z "$scsi" ]; then
		null_disk "$1" "$2" && gone=/dev/$1
		return
	fi
	modprobe scsi_debug dev_size_mb="$2" delay=0 add_host=0 2>/dev/null
	echo 1 >/sys/bus/pseudo/drivers/scsi_debug/add_host
	wait_for find_scsi
}

find_scsi()
{
	local d

	for d in /sys/block/sd*; do
		[ -e "$d/device/delete" ] && [ -b "/dev/${d##*/}" ] && gone=/dev/${d##*/} && return
	done
	return 1
}

take_away()
{
	if [ -n "$scsi" ]; then
		echo 1 >"/sys/block/${gone##*/}/device/delete"
	else
		echo 0 >"$null_dir/${gone##*/}/power"
	fi
}

let_go()
{
	if [ -n "$scsi" ]; then
		echo -1 >/sys/bus/pseudo/drivers/scsi_debug/add_host
		wait_for rmmod scsi_debug
	else
		rmdir "$null_dir/${gone##*/}"
	fi
}

# Four writers, a quarter of the volume each, over and over; they end when /tmp/flood is gone, or at an error.
flood()
{
	local i

	touch /tmp/flood
	rm -f /tmp/flood.error
	for i in 0 1 2 3; do
		while [ -e /tmp/flood ]; do
			dd if=/tmp/new of=/dev/mapper/v bs=16k count=128 skip=$((i * 128)) seek=$((i * 128)) oflag=direct status=none 2>>/tmp/flood.dd ||
				{ echo "$i" >>/tmp/flood.error; break; }
		done &
	done
}

flood_ends() { rm -f /tmp/flood; wait; }
status_is() { out=$(dmsetup status v); [[ $out == *" $1" ]]; }
all_lost() { out=$(snapctl list v -n -o state | sort -u); [ "$out" = lost ]; }
detached() { out=$(dmsetup ls); [[ $out == "No devices"* ]]; }

dd if=/dev/urandom of=/tmp/new bs=1M count=8 status=none

need null_disk gp 8
need goner gd 32
need works attach v /dev/gp "$gone" --format
works create v
dev=$(snapctl activate v@1)
flood
sleep 0.3
works create v
take_away
for g in 1 2 3 4 5; do snapctl create v >/dev/null 2>&1; done
ok "diff gone: the store has failed" wait_for status_is failed
sleep 0.5
flood_ends
ok "diff gone: no writer has seen an error" test ! -e /tmp/flood.error
ok "diff gone: the primary has what was written" cmp /tmp/new /dev/gp
ok "diff gone: and so reads the volume" cmp /tmp/new /dev/mapper/v
ok "diff gone: all generations are lost" all_lost
ok "diff gone: the open one is an error" eio "$dev"
ok "diff gone: none can be cut" refused 6 "" create v
ok "diff gone: writes still pass" quiet dd if=/tmp/new of=/dev/mapper/v bs=1M oflag=direct status=none
works deactivate "$dev"
ok "diff gone: detach" works detach v
ok "diff gone: nothing is left" detached
let_go
null_gone gp

need goner gp2 8
need null_disk gd2 32
need works attach v "$gone" /dev/gd2 --format
works create v
dev=$(snapctl activate v@1)
flood
sleep 0.3
take_away
ended() { [ "$(sort -u /tmp/flood.error 2>/dev/null | wc -l)" = 4 ]; }
ok "primary gone: every writer gets an error" wait_for ended
flood_ends
ok "primary gone: the store has not failed" status_is rw
works deactivate "$dev"
ok "primary gone: detach" works detach v
ok "primary gone: nothing is left" detached
let_go
null_gone gd2
ok "the module can be unloaded" quiet rmmod snapdiff
finish
