#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The longest pause of the primary's writers while generations are given up and space is reclaimed; inside a guest, "make bench-stall" starts it.
#
# Eight writers write MIB (default 8192) in blocks of 64 KiB over a primary of 1 GiB, 40 generations are cut meanwhile, the diff has 256 MiB and
# drops the oldest. The same storm without snapdiff stands beside it: what this machine does to anybody. ROUNDS (default 3) of each, in turn.
# Aim: no pause over 1000 ms.

. tests/selftests/snapdiff/lib.sh
mib=${MIB:-8192} rounds=${ROUNDS:-3}

device()
{
	null_disk fullp 1024 completion_nsec=0 && null_disk fulld 256
}

for ((i = 1; i <= rounds; i++)); do
	need device
	printf 'raw       %s\n' "$(storm write /dev/fullp "$mib" 65536 8 $i)"
	need works attach v /dev/fullp /dev/fulld --format --on-full drop-oldest
	works create v
	storm write /dev/mapper/v "$mib" 65536 8 $i 40 v | sed 's/^/snapdiff  /'
	printf 'snapdiff  %s generations lost\n' "$(snapctl list v -n -o state | grep -c lost)"
	storm verify /dev/fullp "$mib" 65536 8 $i || { echo "the primary is wrong"; exit 1; }
	need wait_for works detach v
	null_gone fullp fulld
done
