#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 1500
#
# A guest is killed at random moments while it writes, flushes, cuts and deletes; after each start everything that was
# acknowledged is there (tests/tools/crashload.c tells what is compared), and the store is whole.
#
# ROUNDS=N and SEED=N change the number of kills and their moments.

. "${BASH_SOURCE%/*}/crash-lib.sh"
crash_begin crash 5
for ((round = 1; round <= rounds; round++)); do
	ok "uml-6.1: what was acknowledged before is there, then killed, round $round" killed uml-6.1 $round
done
ok "debian-6.12, two processors: the same" killed debian-6.12 $((rounds + 1))
ok "uml-6.1: what was acknowledged on debian-6.12 is there" \
	in_guest uml-6.1 "$attach && $verify && snapctl detach v && $attach && $verify && snapctl detach v"
grep '^verified' "$W/out" | sed 's/^/# /'
crash_end $((rounds + 1))
