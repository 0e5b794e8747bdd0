#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.12-debug
# disks: 12M 20M
# timeout: 400
#
# A damaged block of each type, and forged ones, in front of the kernel itself: attach refuses and names the block, or what is read is right
# or EIO; nobody crashes. Hundreds of cases for the same code run in tests/unit/test_core_damage.c.
#
# CASES=N: so many of each type of block and each way; HOWS="flip zero noise swap"; SEED=N.

. "${BASH_SOURCE%/*}/lib.sh"
P=$DISK1 D=$DISK2
cases=${CASES:-1} seed=${SEED:-$((RANDOM * 32768 + RANDOM))}
wrong=0 eios=0 good=0 refused=0 unnamed=0 skipped=0

# A store that was not detached, with several runs, and records in the journal: saved in /tmp/diff.
build()
{
	local i

	works attach v $P $D --format || return 1
	for i in 1 2 3 4; do
		works create v || return 1
		sums[i]=$(sum /dev/mapper/v)
		fio --name=w --filename=/dev/mapper/v --rw=randwrite --bs=4k --size=12M --io_size=1M --direct=1 --ioengine=libaio --iodepth=16 \
			--randseed=$i --thread >/tmp/fio.out 2>&1 || return 1
		# A checkpoint for each but the last: that one stays in the journal.
		[ $i -eq 4 ] || { works detach v && works attach v $P $D; } || return 1
	done
	psum=$(sum $P)
	dd if=$D of=/tmp/diff bs=1M iflag=direct status=none
	works detach v
}

read_generation()		# N
{
	local dev got

	run activate "v@$1"
	[ "$rc" -eq 0 ] || { eios=$((eios + 1)); return; }
	dev=$out
	got=$(dd if="$dev" bs=1M iflag=direct 2>/tmp/err | sha256sum | cut -d' ' -f1)
	if grep -q error /tmp/err; then
		eios=$((eios + 1))
	elif [ "$got" = "${sums[$1]}" ]; then
		good=$((good + 1))
	elif [ "$2" != forge ]; then
		wrong=$((wrong + 1))
		echo "# wrong data in generation $1 ($tried)"
	fi
	wait_for snapctl deactivate "$dev" 2>/dev/null
}

# TYPE HOW SEED
try()
{
	local block g rc_attach

	dd if=/tmp/diff of=$D bs=1M oflag=direct status=none
	block=$(corrupt $D "$1" "$2" "$3" 2>/tmp/err) || {
		[ $? -eq 3 ] || { echo "# $(cat /tmp/err)"; wrong=$((wrong + 1)); }
		skipped=$((skipped + 1))
		return
	}
	tried="$1 $2 $3: block $block"
	echo "test: $tried" >/dev/kmsg
	dmesg -C
	run attach v $P $D
	if [ "$rc" -ne 0 ]; then
		refused=$((refused + 1))
		dmesg | grep -q "block [0-9]*: " || { [ "$2" = forge ] || { unnamed=$((unnamed + 1)); echo "# $1 $2 $3: $out"; }; }
		return
	fi
	for g in 1 4; do
		read_generation $g "$2"
	done
	[ "$(sum /dev/mapper/v)" = "$psum" ] || { echo "# the primary"; wrong=$((wrong + 1)); }
	run create v
	run delete v@2
	run map v@1
	run diff v@1 v@3
	run status v
	wait_for snapctl detach v 2>/dev/null || dmsetup remove --force v
}

all_of()
{
	local type i

	for type in super journal journal-body bitmap index catalog fence.1 leaf data; do
		for ((i = 0; i < cases * ${2:-1}; i++)); do
			try $type "$1" $((seed + i))
		done
	done
}

echo "# SEED=$seed"
declare -a sums
need build
# KASAN and lockdep make each case slow; forged ones are what they are for.
for how in ${HOWS:-flip}; do
	all_of $how
done
all_of forge 2
echo "# $refused refused, $eios generations unreadable, $good good, $wrong wrong; $skipped not possible"
ok "what is read is right or an error" test $wrong -eq 0
ok "who refuses names the block" test $unnamed -eq 0
ok "the damage was met" test $((refused + eios)) -gt 5
ok "not everything is refused" test $good -gt 5
dd if=/tmp/diff of=$D bs=1M oflag=direct status=none
ok "the undamaged store can still be attached" works attach v $P $D
ok "and has all generations" generation v@1 "${sums[1]}"
ok "detach" wait_for works detach v
finish
