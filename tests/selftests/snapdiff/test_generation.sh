#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1 uml-6.12-debug debian-6.12
# disks: 320M 256M 64M 64M
# timeout: 600
#
# Cuts: frozen filesystems, one instant for several volumes, many of them under load, everything at once.

set -u
. "$(dirname "$0")/ktap.sh"

mkdir -p /tmp/mnt /tmp/gen

# files_changing DIRECTORY: create, write, sync, remove, until /tmp/stop is there
files_changing()
{
	local i=0
	while [ ! -e /tmp/stop ]; do
		i=$((i + 1))
		dd if=/dev/urandom of="$1/f$((i % 40))" bs=16k count=$((1 + i % 9)) status=none
		[ $((i % 7)) -ne 0 ] || sync "$1/f$((i % 40))"
		[ $((i % 5)) -ne 0 ] || rm -f "$1/f$(((i * 3) % 40))"
	done
}

# clean FS DEVICE: the generation needs no recovery and is consistent
clean()
{
	case $1 in
	ext4)
		run dumpe2fs -h "$2"
		[[ $out != *needs_recovery* ]] && works e2fsck -fn "$2"
		;;
	xfs)
		# A freeze leaves one record in the log on purpose, for inodes that are open and unlinked; all the rest is in place.
		works mount -t xfs -o ro,nouuid,norecovery "$2" /tmp/gen && works sh -c 'cat /tmp/gen/f* | wc -c' &&
			works umount /tmp/gen
		;;
	esac
}

# frozen FS: cuts of a mounted filesystem at work
frozen()
{
	local g dev ok=0 load
	rm -f /tmp/stop
	wipefs -qa /dev/mapper/v
	works mkfs."$1" -q /dev/mapper/v && mount /dev/mapper/v /tmp/mnt || return 1
	files_changing /tmp/mnt &
	load=$!
	for _ in 1 2 3; do
		sleep 0.5
		g=$(timeout 60 snapctl create v --freeze) || { ok=1; break; }
		dev=$(snapctl activate "$g")
		clean "$1" "$dev" || ok=1
		snapctl deactivate "$g"
	done
	: > /tmp/stop
	wait $load
	umount /tmp/mnt || ok=1
	[ "$(snapctl list v -n -o frozen | tail -n 3 | sort -u)" = yes ] || ok=1
	return $ok
}

# While somebody else has frozen it: an error or a nested freeze, but never a hang, and it stays frozen
nested_freeze()
{
	local rc
	fsfreeze -f /tmp/mnt || return 1
	out=$(timeout 30 snapctl create v --freeze 2>&1)
	rc=$?
	(: > /tmp/mnt/not-yet) &
	sleep 0.5
	kill -0 $! 2> /dev/null || return 1
	fsfreeze -u /tmp/mnt || return 1
	wait $!
	case $rc in
	0) return 0 ;;
	124) return 1 ;;
	*) [[ $out == *"v: "*"frozen"* ]] ;;
	esac
}

attach_both()
{
	works snapctl attach v "$DISK1" "$DISK2" --format && works snapctl attach w "$DISK3" "$DISK4" --format
}

ok "attach" attach_both
ok "ext4 is frozen by a cut" frozen ext4
if command -v mkfs.xfs > /dev/null && { grep -qw xfs /proc/filesystems || modprobe -q xfs; }; then
	ok "xfs is frozen by a cut" frozen xfs
fi
works snapctl delete v@1..100
wipefs -qa /dev/mapper/v
mkfs.ext4 -q /dev/mapper/v
mount /dev/mapper/v /tmp/mnt
ok "a cut without freezing" works snapctl create v --no-freeze
ok "is known as such" prints no sh -c 'snapctl list v -n -o frozen | tail -n 1'
ok "a filesystem that is frozen already" nested_freeze
ok "the filesystem works" works sh -c 'echo x > /tmp/mnt/x && sync /tmp/mnt/x'
ok "a frozen volume and one without a filesystem at one instant" works snapctl create v w --freeze
umount /tmp/mnt

# ---- several volumes at one instant ----

cat > /tmp/order.py << 'EOF'
# A number goes to the first volume, then to the second; the later one may never be ahead in a generation.
import mmap, os, sys
def opened(path, flags):
    return os.open(path, flags | os.O_DIRECT)
def number(fd, buf):
    os.preadv(fd, [buf], 0)
    return int.from_bytes(buf[:8], 'little')
buf = mmap.mmap(-1, 4096)
if sys.argv[1] == 'write':
    a, b = (opened(p, os.O_RDWR) for p in sys.argv[2:4])
    n = 0
    while not os.path.exists('/tmp/stop'):
        n += 1
        buf[:8] = n.to_bytes(8, 'little')
        os.pwritev(a, [buf], 0)
        os.pwritev(b, [buf], 0)
        if n == 1:
            open('/tmp/started', 'w').close()
else:
    a, b = (number(opened(p, os.O_RDONLY), buf) for p in sys.argv[2:4])
    print(a, b)
    sys.exit(0 if b <= a <= b + 1 and a else 1)
EOF

one_instant()
{
	local gens a b load before=0 why=""
	rm -f /tmp/stop /tmp/started
	python3 /tmp/order.py write /dev/mapper/v /dev/mapper/w &
	load=$!
	while [ ! -e /tmp/started ] && kill -0 $load; do sleep 0.1; done
	for _ in 1 2 3 4 5 6 7 8; do
		gens=$(snapctl create v w | paste -sd' ')
		a=$(snapctl activate "${gens% *}") && b=$(snapctl activate "${gens#* }") || { why="$gens: activate"; break; }
		works python3 /tmp/order.py check "$a" "$b" || why="$why; $gens: $out"
		[ "${out% *}" -gt "$before" ] || why="$why; $gens: no write since $before"
		before=${out% *}
		works snapctl deactivate "$a" && works snapctl deactivate "$b" || { why="$why; $gens: $out"; break; }
	done
	: > /tmp/stop
	wait $load
	out=$why
	[ -z "$why" ]
}

ok "a group is cut at one instant, and writes go on" one_instant

# ---- many cuts under load ----

many_cuts()
{
	local load i start=$SECONDS
	fio --name=x --filename=/dev/mapper/w --rw=randwrite --bs=4k --direct=1 --ioengine=libaio --iodepth=16 --size=60M \
		--time_based --runtime=300 --eta=never --output=/dev/null &
	load=$!
	for i in $(seq 40); do
		works timeout 20 snapctl create w || { kill $load; wait $load; return 1; }
	done
	echo "# $(((SECONDS - start))) s for 40 cuts under writes"
	kill $load || return 1
	wait $load
	works snapctl delete w@1..40
}

ok "forty cuts under writes" many_cuts

# ---- everything at once ----

# Each loop does one thing as fast as it can; most of it is refused now and then, nothing may hang or be inconsistent.
at_once()
{
	local end=$((SECONDS + $1)) pids="" p
	exec 8< /dev/mapper/w
	(while [ $SECONDS -lt $end ]; do snapctl create v w; done) > /dev/null 2>&1 & pids="$pids $!"
	(while [ $SECONDS -lt $end ]; do snapctl create w; done) > /dev/null 2>&1 & pids="$pids $!"
	(while [ $SECONDS -lt $end ]; do
		g=$(snapctl list w -n -o generation | tail -n 2 | head -n 1)
		d=$(snapctl activate "w@$g") && dd if="$d" of=/dev/null bs=1M count=16 iflag=direct status=none
		snapctl deactivate "w@$g"
	done) > /dev/null 2>&1 & pids="$pids $!"
	(while [ $SECONDS -lt $end ]; do
		g=$(snapctl list w -n -o generation | head -n 3 | tail -n 1)
		snapctl bookmark "w@$g"; snapctl pin "w@$g"; snapctl unpin "w@$g"; snapctl delete "w@1..$g"
	done) > /dev/null 2>&1 & pids="$pids $!"
	(while [ $SECONDS -lt $end ]; do snapctl list; snapctl status; snapctl diff "w@$(snapctl list w -n -o generation | tail -n 1)" w; done
	) > /dev/null 2>&1 & pids="$pids $!"
	(while [ $SECONDS -lt $end ]; do dmsetup remove w; sleep 0.1; done) > /dev/null 2>&1 & pids="$pids $!"
	fio --name=x --filename=/dev/mapper/w --rw=randwrite --bs=4k-64k --direct=1 --size=60M --time_based --runtime="$1" \
		--eta=never --output=/dev/null
	for p in $pids; do wait "$p"; done
	exec 8<&-
	test -b /dev/mapper/w
}

ok "everything at once" at_once 10
ok "nothing is active any more" sh -c '! snapctl list -n -o device | grep snapvirt'
snapctl create w > /dev/null
last=$(snapctl list w -n -o generation | tail -n 1)
dev=$(snapctl activate "w@$last")
ok "the newest generation is the volume" test "$(sum "$dev")" = "$(sum /dev/mapper/w)"
works snapctl deactivate "$dev"
ok "detach" works snapctl detach v
ok "both" works snapctl detach w
ok "the module can go" works rmmod snapdiff
finish
