#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 1500
#
# The pulled plug: a guest with four processors and a stock kernel is killed at random moments of a load, started again on the same disks,
# judged (tests/tools/crashload.c), loaded, killed, and so on.
#
# The disks have a volatile cache as the guest sees it, and their files are the host's page cache: writes in flight may or may not be there, writes
# that were completed are. The loss of completed writes that were not flushed is what test_log_writes.sh is for.
#
# ROUNDS=N and SEED=N change the number of kills and their moments.

. "${BASH_SOURCE%/*}/crash-lib.sh"
crash_begin plug 2
for ((round = 1; round <= rounds; round++)); do
	ok "what was acknowledged before is there, then the plug is pulled, round $round" killed debian-6.12 $round --smp $((round % 2 ? 4 : 2))
done
# The last state is judged where it is quick; the module is the same.
ok "what was acknowledged before the last time is there" \
	in_guest uml-6.1 "$attach && $verify && snapctl detach v && $attach && $verify && snapctl detach v"
grep '^verified' "$W/out" | sed 's/^/# /'
crash_end "$rounds"
