# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# What the tests with killed guests share. Sourced by bash scripts; not a test itself.
#
#   crash_begin NAME DEFAULT-ROUNDS   $rounds, $seed, empty images $W/primary and $W/diff (formatted), the log $W/log
#   ok NAME COMMAND...                one case; the end of $W/out when it fails
#   killed KERNEL ROUND [OPTION...]   start a guest (options of tests/vm/guest), verify, load it; SIGKILL some time after it has begun to cut
#   in_guest KERNEL SCRIPT [OPTION...]
#   whole                             snapmeta check of the diff
#   crash_end LEAST                   there were more than LEAST generations to lose; the plan, the status

set -u
cd "$(dirname "$0")/../.." || exit 1
[ -z "${SNAPDIFF_GUEST:-}" ] || exit 4
guest= W=
n=0 failed=0

cleanup()
{
	[ -z "$guest" ] || kill "$guest" 2>/dev/null
	[ "$failed" -ne 0 ] || rm -rf "${W:?}"
}
trap cleanup EXIT

ok()
{
	local name=$1

	shift
	n=$((n + 1))
	if "$@"; then
		echo "ok $n $name"
	else
		failed=$((failed + 1))
		echo "not ok $n $name"
		sed 's/^/#   /' "$W/out" | tail -n 25
		echo "# SEED=$seed, kept: $W"
	fi
}

in_guest()
{
	tests/vm/guest --kernel "$1" --timeout 400 --scratch "$W" --disk-file "$W/primary" --disk-file "$W/diff" \
		"${@:3}" -- bash -c "$2" >"$W/out" 2>&1
}

attach='snapctl attach v $DISK1 $DISK2 >/dev/null'
verify='crashload verify v $SCRATCH/log'
load='fio --name=load --filename=/dev/mapper/v --offset=50% --rw=randwrite --bsrange=512-64k --blockalign=512 \
	--ioengine=libaio --iodepth=16 --direct=1 --time_based --runtime=600 --thread --output=/tmp/fio.out &
crashload run v $SCRATCH/log'

killed()
{
	local i delay=$(((seed * ($2 + 7919)) % 3000 + 300)) before=$(grep -c '^C' "$W/log" 2>/dev/null)

	rm -f "$W/guest.pid"
	: >"$W/out"
	in_guest "$1" "$attach && $verify && { $load $((seed + $2)); }" "${@:3}" &
	guest=$!
	for ((i = 0; i < 3600; i++)); do
		# However slow the machine is: two cuts first.
		[ "$(grep -c '^C' "$W/log" 2>/dev/null)" -ge $((${before:-0} + 2)) ] && break
		kill -0 $guest 2>/dev/null || break
		sleep 0.1
	done
	sleep "$(awk "BEGIN { print $delay / 1000 }")"
	kill -KILL -- "-$(cat "$W/guest.pid")"
	wait $guest
	i=$?
	guest=
	grep '^verified' "$W/out" | sed 's/^/# /'
	echo "# $1: killed $delay ms after it began"
	# 137: by us, and running: everything before was right.
	[ $i -eq 137 ] && grep -q '^running' "$W/out"
}

whole()
{
	snapmeta check "$W/diff" >"$W/out" 2>&1
}

crash_begin()
{
	rounds=${ROUNDS:-$2}
	seed=${SEED:-$((RANDOM * 32768 + RANDOM))}
	mkdir -p build/e2e
	W=$(mktemp -d "$PWD/build/e2e/$1.XXXXXX")
	truncate -s 32M "$W/primary"
	truncate -s 400M "$W/diff"
	snapctl format --chunk 4k "$W/diff" >"$W/out" 2>&1 ||
		in_guest uml-6.1 'snapctl format $DISK2' || { cat "$W/out"; echo "1..0 # cannot format"; exit 1; }
	: >"$W/out"
	echo "# SEED=$seed"
}

crash_end()
{
	ok "the store is whole" whole
	ok "there were generations to lose" test "$(grep -c '^C' "$W/log")" -gt "$1"
	echo "# $(grep -c '^C' "$W/log") cuts, $(grep -c '^d' "$W/log") deletes, $(grep -c '^F' "$W/log") flushes logged"
	echo "1..$n"
	[ "$failed" -eq 0 ]
}
