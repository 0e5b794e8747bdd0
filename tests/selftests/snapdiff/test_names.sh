#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1 uml-6.12-debug
# disks: 64M 64M 64M 64M
# timeout: 120
#
# A volume is known by the name that its dm device has now: one that has been renamed does not answer to the name that another one has got since.
#
# Without snap_volume_rename() in snap_volume_find() both are "v", and what is said to the second is done to the first.

. "${BASH_SOURCE%/*}/lib.sh"

table_gone()
{
	dmsetup suspend w && dmsetup reload w --table "0 131072 error" && dmsetup resume w
}

labels()
{
	out=$(snapctl list "$1" -n -o label | xargs)
	[ "$out" = "$2" ]
}

need works attach v "$DISK1" "$DISK2" --format
need works create v --label first
need works activate v@1
need dmsetup rename v w
ok "a renamed volume has its new name" labels w first
ok "and not the old one" refused 4 "v: no such volume" list v
ok "its disk, too" json 'd["generations"][0]["volume"] == "w" and d["generations"][0]["device"] == "/dev/snapvirt0"' list
need works attach v "$DISK3" "$DISK4" --format
need works create v --label second
ok "the next device of that name is another volume" labels v second
need works delete v@1
ok "what is said to it is not done to the other" labels w first
need works create v --label third
need works activate v@2
ok "each has its disk" json 'sorted((g["volume"], g["device"]) for g in d["generations"]) == [("v", "/dev/snapvirt1"), ("w", "/dev/snapvirt0")]' list
need table_gone
need dmsetup rename w u
need dmsetup rename v w
ok "the disk of a dead volume goes by its name, be there another volume of that name" works deactivate w@1
ok "and only that" json 'd["generations"][0]["device"] == "/dev/snapvirt1"' list w
ok "the other by its own" works deactivate w@2
ok "detach" works detach w
dmsetup remove u
ok "the module can go" rmmod snapdiff
finish
