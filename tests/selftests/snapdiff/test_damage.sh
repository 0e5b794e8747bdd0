#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1
# disks: 24M 32M 24M 8M
# timeout: 300
#
# Wrong and damaged devices: said clearly, with the documented exit code, and nothing is changed by a refusal.

. "${BASH_SOURCE%/*}/lib.sh"
P=$DISK1 D=$DISK2 O=$DISK3 SMALL=$DISK4

# poke DEVICE BLOCK:SECTOR...: random bytes over sectors of blocks of 4 KiB
poke()
{
	python3 - "$@" <<-'END'
	import os, sys
	fd = os.open(sys.argv[1], os.O_RDWR)
	for at in sys.argv[2:]:
	    block, sector = map(int, at.split(':'))
	    os.pwrite(fd, os.urandom(512), block * 4096 + sector * 512)
	os.fsync(fd)
	END
}
save() { dd if=$D of=/tmp/diff bs=1M iflag=direct status=none; }
restore() { dd if=/tmp/diff of=$D bs=1M oflag=direct status=none; }
unchanged() { out="$1 was written to"; [ "$(sum "$1")" = "$2" ]; }
states() { snapctl list v -n -o state | sort -u | tr '\n' ' '; }
nothing_attached() { out=$(dmsetup ls); [[ $out == "No devices"* ]]; }

dd if=/dev/urandom of=$P bs=1M count=24 oflag=direct status=none
dd if=/dev/urandom of=$O bs=1M count=24 oflag=direct status=none

osum=$(sum $O)
ok "format refuses a diff that is too small" refused 4 "small" format $SMALL
ok "attach --format refuses it, too" refused 4 "small" attach v $P $SMALL --format
ok "nothing is attached" nothing_attached

need works attach v $P $D --format
works create v
g1=$(sum /dev/mapper/v)
dd if=/dev/urandom of=/dev/mapper/v bs=1M count=6 oflag=direct status=none
works create v
g2=$(sum /dev/mapper/v)
dd if=/dev/urandom of=/dev/mapper/v bs=1M count=2 seek=4 oflag=direct status=none
works detach v
save
psum=$(sum $P)

ok "attach refuses a diff that is a primary" refused 4 "" attach v $P $O
ok "attach refuses the roles the wrong way round" refused 4 "" attach v $D $P
ok "the primary was not touched" unchanged $P "$psum"
ok "attach refuses primary = diff" refused 4 "same device" attach v $D $D
run attach v $P /dev/nope
ok "attach refuses what is not there" test $rc -eq 4

# One of the superblocks, then both.
for i in 0 1; do
	restore
	poke $D $i:1
	ok "superblock $i damaged: attach works" works attach v $P $D
	ok "superblock $i damaged: generation 1" generation v@1 "$g1"
	ok "superblock $i damaged: generation 2" generation v@2 "$g2"
	works detach v
	works attach v $P $D
	ok "superblock $i damaged: and the next attach" generation v@1 "$g1"
	works detach v
done
restore
poke $D 0:0 1:0
dsum=$(sum $D)
ok "both overwritten: attach refuses" refused 4 "" attach v $P $D
ok "both overwritten: nothing was written" unchanged $D "$dsum"
restore
poke $D 0:1 1:1
dsum=$(sum $D)
run attach v $P $D
echo "# $rc $out"
ok "both damaged: attach refuses" test $rc -ge 4
ok "both damaged: nothing was written" unchanged $D "$dsum"
ok "both damaged: nothing is attached" nothing_attached
run attach v $P $D --format
echo "# $rc $out"
ok "both damaged: --format does not overwrite a store" test $rc -ge 4
ok "both damaged: nothing was written" unchanged $D "$dsum"
ok "the primary was not touched" unchanged $P "$psum"

# One damaged chunk in each of the parts that a large read is split into: the read fails, whichever part it is.
damaged_part()	# OFFSET
{
	local place status
	restore
	works attach v $P $D || return 1
	place=$(snapctl map v@1 --offset "$1" --length 4k | awk 'END { print $NF / 4096 }')
	works detach v && poke $D "$place:0" && works attach v $P $D && works activate v@1 || return 1
	dd if="$out" of=/dev/null bs=1M count=1 iflag=direct status=none 2> /tmp/err
	status=$?
	works deactivate v@1 && works detach v && [ $status -ne 0 ] && grep -q "Input/output error" /tmp/err
}

for k in 0 252 256 508 768 1020; do
	ok "a chunk damaged at $k KiB: a read of 1 MiB fails" damaged_part ${k}k
done

# Damage anywhere else: a good read, EIO or a refusal, never wrong bytes.
blocks=$(($(blockdev --getsz $D) / 8))
wrong=0 eios=0 good=0 refusals=0
for ((i = 0; i < 12; i++)); do
	restore
	# Half of it where metadata and data surely are.
	at=()
	for ((j = 0; j < (i % 3 ? 3 : 40); j++)); do
		at+=($((2 + (RANDOM * 32768 + RANDOM) % (i % 2 ? 2500 : blocks - 2))):$((RANDOM % 8)))
	done
	poke $D "${at[@]}"
	run attach v $P $D
	if [ $rc -ne 0 ]; then
		refusals=$((refusals + 1))
		continue
	fi
	for g in 1 2; do
		run activate v@$g || { eios=$((eios + 1)); continue; }
		[ $rc -eq 0 ] || { eios=$((eios + 1)); continue; }
		dev=$out
		s=$(dd if="$dev" bs=1M iflag=direct 2>/tmp/err | sha256sum | cut -d' ' -f1)
		want=g$g
		if grep -q error /tmp/err; then
			eios=$((eios + 1))
		elif [ "$s" = "${!want}" ]; then
			good=$((good + 1))
		else
			wrong=$((wrong + 1))
		fi
		snapctl deactivate "$dev"
	done
	[ "$(sum /dev/mapper/v)" = "$psum" ] || { echo "# the primary reads wrong"; wrong=$((wrong + 1)); }
	snapctl detach v
done
echo "# random damage: $good good reads, $eios errors, $refusals refused, $wrong wrong"
ok "damaged blocks never give wrong bytes" test $wrong -eq 0
ok "the damage was met" test $((eios + refusals)) -gt 0

# Another primary, and one that was written without us: no generation may show its bytes.
restore
ok "another primary: refused" refused 4 "written without" attach v $O $D
ok "another primary: nothing is attached" nothing_attached
ok "another primary: not touched" unchanged $O "$osum"
poke $P 0:1
dsum=$(sum $D)
ok "written without us: refused" refused 4 "written without" attach v $P $D
ok "written without us: nothing was written" unchanged $D "$dsum"
ok "written without us: attached when told to" works attach v $P $D --accept-changed
ok "written without us: no generation is live" equal "$(states)" "lost "
ok "written without us: not to be activated" refused 6 "lost" activate v@2
works detach v
works attach v $P $D
ok "written without us: nor after another attach" equal "$(states)" "lost "
ok "written without us: a new one can be cut" works create v
works detach v
restore
S=$(mktemp -u /dev/mapper/shortXXXX)
dmsetup create "${S##*/}" --table "0 $(($(blockdev --getsz $P) - 64)) linear $P 0"
ok "a primary that shrank: refused" refused 4 "smaller" attach v "$S" $D
dmsetup remove "${S##*/}"
finish
