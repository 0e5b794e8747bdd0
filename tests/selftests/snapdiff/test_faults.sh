#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1 uml-6.12-debug
# timeout: 300
# disks: 4M 24M
#
# The matrix of faults: under primary and diff, reads and writes, transient and permanent, one writer that waits and a flood. What is looked
# at in each cell stands at the top of tests/tools/faults.c.

. "${BASH_SOURCE%/*}/lib.sh"

cell()		# UNDER FAULT LOAD [OPTION]...
{
	local name="$1 $2 $3 ${*:4}" primary=/dev/fltp diff=/dev/fltd

	null_disk fltp 4 && null_disk fltd 24 || return 1
	# null_blk allocates in the thread that writes: its own failures would be no lack of memory of ours
	[ "$2" != memory ] || { primary=$DISK1 diff=$DISK2; }
	out=$(faults --under "$1" --fault "$2" --load "$3" "${@:4}" $primary $diff 2>&1)
	rc=$?
	grep '^#' <<<"$out"
	if [ $rc -ne 0 ]; then
		out="$name: status $rc: $out"
		snapctl detach flt
		for d in top-p top-d flt-p flt-d low-p low-d; do dmsetup remove $d; done
	fi
	null_gone fltp fltd
	return $rc
}

if [ "$KERNEL" != uml-6.12-debug ]; then
	for load in sync flood; do
		for lasts in "" --permanent; do
			for fault in error writes drop range body; do
				# A device that goes on lying until it is detached has gone back in time: nobody can know.
				[[ $fault$lasts != range--permanent && $fault$lasts != drop--permanent ]] || continue
				ok "diff: $fault, $load $lasts" cell diff $fault $load $lasts
			done
			for fault in error writes dust; do
				ok "primary: $fault, $load $lasts" cell primary $fault $load $lasts
			done
		done
	done
	finish
fi

# What only this kernel can do, and a few of the others under its eyes.
for load in sync flood; do
	for under in primary diff; do
		ok "$under: reads, $load" cell $under reads $load
		ok "$under: random, $load" cell $under random $load
	done
done
for under in primary diff; do
	ok "$under: reads, flood, permanent" cell $under reads flood --permanent
	ok "$under: random, flood, permanent" cell $under random flood --permanent
	ok "$under: error, flood, permanent" cell $under error flood --permanent
done
ok "memory, sync" cell diff memory sync
ok "memory, flood" cell diff memory flood
ok "diff: corrupt, flood" cell diff corrupt flood
ok "diff: range, flood" cell diff range flood
ok "primary: dust, flood" cell primary dust flood
finish
