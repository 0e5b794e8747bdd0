#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1
# mem: 1500M
# timeout: 300
#
# A full diff, drop-oldest: a slow one, on which reclaiming takes longer than writers fill it (dm-delay); and one where an old pinned or active generation needs what
# was copied since, so that giving up the younger ones would be in vain.

. "${BASH_SOURCE%/*}/lib.sh"

live() { snapctl list v -n -o generation,state | awk '$2 == "live" { print $1 }' | tr '\n' ' '; }
lost() { snapctl list v -n -o generation,state | awk '$2 == "lost" { print $1 }' | tr '\n' ' '; }
part() { dd if=/dev/urandom of=/dev/mapper/v bs=256k count="$2" seek="$1" oflag=direct status=none; }
rw() { out=$(dmsetup status v); [[ $out == *" rw" ]]; }
line_of() { grep -n "\"$1\"" /tmp/events | head -n 1 | cut -d: -f1; }
event() { grep -q "$1" /tmp/events; }
still_good() { generation "v@$1" "${sums[$1]}"; }
declare -a sums

watch_events()
{
	snapctl monitor --json --timeout 900 >/tmp/events 2>/dev/null &
	monitor=$!
	sleep 0.3
}

slow_diff()
{
	null_disk fullp 32 && null_disk fulld 32 || return 1
	dd if=/dev/urandom of=/dev/fullp bs=1M count=32 oflag=direct status=none
	dmsetup create slow --table "0 $((32 * 2048)) delay /dev/fulld 0 $1"
}

fast_again()
{
	dmsetup suspend slow && dmsetup load slow --table "0 $((32 * 2048)) delay /dev/fulld 0 0" && dmsetup resume slow
}

end()
{
	wait_for works detach v
	kill $monitor
	wait $monitor 2>/dev/null
	dmsetup remove slow 2>/dev/null
	null_gone fullp fulld
}

# A generation is 4 MiB of 32, in places that come again after eight; the diff has room for five or so.
round()
{
	works create v || return 1
	last=$(($1 + 1)) sums[$1 + 1]=$(sum /dev/mapper/v)
	part $(($1 * 16 % 128)) 16
}

rounds()
{
	local i

	for ((i = 0; i < $1; i++)); do
		round $i || return 1
	done
}

blow() { quiet storm write /dev/mapper/v 8 65536 8 7 && blown=$out; }

in_order()			# lost ones are older than live ones
{
	out="lost: $(lost) live: $(live)"
	[ "$(lost | wc -w)" -gt 0 ] && [ "$(live | wc -w)" -gt 0 ] && [ "$(lost | awk '{ print $NF }')" -lt "$(live | awk '{ print $1 }')" ]
}

all_good() { local g; for g in $(live); do still_good "$g" || return 1; done; }

# A generation for each MiB that is written for the first time, until one is lost. An old one that stays needs all of it: of the younger ones nothing would come back.
until_lost()
{
	local i

	for ((i = 1; i < 23; i++)); do
		works create v || return 1
		sums[i + 1]=$(sum /dev/mapper/v)
		part $((i * 4)) 4
		[ -z "$(lost)" ] || return 0
	done
	out="$(snapctl status v -b --json)"
	return 1
}

# As long as it is there no other one goes; then the oldest others do, down to 90 %.
that_one_first()
{
	out="lost: $(lost)live: $(live)"
	[ "$(grep '"lost"' /tmp/events | head -n 1 | grep -c '"generation": *1[,}]')" -eq 1 ] && in_order && [ "$(live | wc -w)" -gt 4 ]
}

some_good() { local g; for g in $(live | awk '{ print $1, $NF }'); do still_good "$g" || return 1; done; }

# in_vain KIND: generation 1 is pinned or active
in_vain()
{
	local dev

	null_disk fullp 24
	null_disk fulld 18
	dd if=/dev/urandom of=/dev/fullp bs=1M count=24 oflag=direct status=none
	need works attach v /dev/fullp /dev/fulld --format --on-full drop-oldest
	watch_events
	works create v
	sums=()
	sums[1]=$(sum /dev/mapper/v)
	part 0 4
	case "$1" in
	pinned) works pin v@1 ;;
	active) dev=$(snapctl activate v@1) ;;
	esac
	ok "$1: first writes until a generation is lost" until_lost
	sleep 1
	ok "$1: it is the old one: giving up others would have been in vain" that_one_first
	ok "$1: not before there was no room for another copy" eval '[ "$(line_of full)" -lt "$(line_of lost)" ]'
	ok "$1: the oldest and the newest of the others are good" some_good
	[ "$1" != active ] || ok "$1: reading it is an error" eio "$dev"
	[ "$1" != active ] || works deactivate "$dev"
	end
}

# DELAY: of each I/O of the diff, in ms. At 80 reclaiming takes longer than five seconds.
for delay in ${DELAYS-80}; do
	sums=()
	need slow_diff $delay
	need works attach v /dev/fullp /dev/mapper/slow --format --on-full drop-oldest
	watch_events
	start=$SECONDS
	ok "delay $delay ms: ten generations of 4 MiB over 32 MiB" rounds 10
	echo "# $((SECONDS - start)) s"
	ok "delay $delay ms: eight writers" blow
	printf '%s\n' "$blown" | sed 's/^/# /'
	echo "# lost: $(lost) live: $(live)"
	need fast_again
	ok "delay $delay ms: the store has not failed" rw
	ok "delay $delay ms: generations were given up one by one" eval 'event "\"lost\"" && ! event "all .* live"'
	ok "delay $delay ms: the oldest first, and some are left" in_order
	ok "delay $delay ms: what is left is good" all_good
	end
done
in_vain pinned
in_vain active
finish
