#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1
# disks: 400M 200M
# timeout: 300
#
# File systems on a volume: frozen at the cut, a generation mounts read-only and has the files of that moment.

. "${BASH_SOURCE%/*}/lib.sh"
P=$DISK1 D=$DISK2
mkdir -p /tmp/m /tmp/g

files() { (cd "$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum); }
files_are() { files "$1" >/tmp/have && quiet diff "$2" /tmp/have; }
mounts() { quiet mount -o "$1" "$2" /tmp/g; }

# Checked as it is: frozen, so nothing has to be replayed.
sound_ext4() { quiet e2fsck -fn "$1"; }

# A frozen xfs keeps records in its log on purpose: a copy is mounted first, which replays them.
sound_xfs()
{
	dd if="$1" of=/tmp/copy bs=1M conv=sparse status=none && quiet mount -o loop,nouuid /tmp/copy /tmp/g &&
		umount /tmp/g && quiet xfs_repair -n /tmp/copy
	local r=$?

	rm -f /tmp/copy
	return $r
}

# Appends lines and syncs them until told to stop; each file's line count is written beside it after the sync.
writer()
{
	local i=0

	while [ ! -e /tmp/stop ]; do
		i=$((i + 1))
		echo "line $i of $1 $RANDOM $RANDOM" >>/tmp/m/log.$1
		cp /tmp/m/log.$1 /tmp/m/copy.$1.new && mv /tmp/m/copy.$1.new /tmp/m/copy.$1
		[ $((i % 10)) -ne 0 ] || sync /tmp/m/log.$1
	done
}

for fs in ext4 xfs; do
	command -v mkfs.$fs >/dev/null && grep -qw $fs /proc/filesystems || { skip "$fs" "not here"; continue; }
	[ $fs = ext4 ] && opts=ro,noload || opts=ro,norecovery,nouuid
	need works attach v $P $D --format
	mkfs.$fs -q $([ $fs = ext4 ] && echo -F || echo -f) /dev/mapper/v
	mount /dev/mapper/v /tmp/m
	cp -r /usr/share/perl5 /tmp/m/a 2>/dev/null || cp -r /usr/share/doc /tmp/m/a 2>/dev/null
	echo "dirty, not synced" >/tmp/m/dirty
	ok "$fs: create of a mounted one" works create v
	first=$out
	files /tmp/m >/tmp/want1
	ok "$fs: it was frozen" equal "$(snapctl list v -n -o frozen | tail -n 1)" yes
	ok "$fs: it goes on" touch /tmp/m/after
	rm -rf /tmp/m/a/[A-M]*
	cp -r /usr/share/bash-completion /tmp/m/b 2>/dev/null
	rm /tmp/m/dirty
	works create v
	second=$out
	files /tmp/m >/tmp/want2
	rm -f /tmp/stop
	writer 1 & w1=$!
	writer 2 & w2=$!
	sleep 1
	ok "$fs: create while it is written" works create v
	third=$out
	sleep 0.5
	ok "$fs: and again" works create v
	touch /tmp/stop
	wait $w1 $w2
	for g in $first:/tmp/want1 $second:/tmp/want2; do
		works activate "${g%:*}"
		dev=$out
		ok "$fs: ${g%:*} mounts without recovery" mounts $opts "$dev"
		ok "$fs: ${g%:*} has the files of its moment" files_are /tmp/g "${g#*:}"
		umount /tmp/g
		works deactivate "$dev"
	done
	works activate "$third"
	dev=$out
	ok "$fs: $third needs no repair" sound_$fs "$dev"
	mounts $opts "$dev"
	ok "$fs: $third has its logs" test -s /tmp/g/log.1 -a -s /tmp/g/log.2
	umount /tmp/g
	works deactivate "$dev"
	umount /tmp/m
	ok "$fs: the volume needs no repair" quiet fsck.$fs $([ $fs = ext4 ] && echo -fn) /dev/mapper/v
	works detach v
	ok "$fs: nor does the primary without us" mount $P /tmp/m
	files /tmp/m >/tmp/raw
	ok "$fs: which has the newest files" test -e /tmp/m/after
	umount /tmp/m
	# Written without us, if only by that mount: whatever is said then, no generation may show wrong bytes.
	run attach v $P $D
	works delete v@1..4
	works detach v
	wipefs -qa $P
	snapctl format --force $D
done
finish
