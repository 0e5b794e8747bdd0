#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1
# mem: 1500M
# timeout: 600
#
# drop-oldest in the long run: given up in time, the oldest first, those in use last; and a storm of 10 GiB over a diff of 64 MiB.
#
# With 48 cuts what changed since the lost generations does not fit either: that is given up, too, and the store lives (without: it fails).
#
# STORM=MIB: another size of the storm.

. "${BASH_SOURCE%/*}/lib.sh"
storm_mib=${STORM:-10240}

states() { snapctl list v -n -o generation,state | awk '{ printf "%s:%s ", $1, $2 }'; }
live() { snapctl list v -n -o generation,state | awk '$2 == "live" { print $1 }'; }
is_live() { live | grep -qx "$1"; }
lost() { snapctl list v -n -o generation,state | grep -qE "^ *$1 +lost"; }
event() { grep -q "\"$1\"" /tmp/events; }
line_of() { grep -n "\"$1\"" /tmp/events | head -n 1 | cut -d: -f1; }
before() { [ "$(line_of "$1")" -lt "$(line_of "$2")" ] 2>/dev/null; }

# settled: what was given up has come back, as far as it will
settled()
{
	local a b

	for _ in {1..20}; do
		a=$(snapctl status v -n -b)
		sleep 0.3
		b=$(snapctl status v -n -b)
		[ "$a" != "$b" ] || break
	done
}

# One round: 5 of 20 MiB, so the pinned generation needs no more than these; then a generation. $g and $s are its number and sum.
round()
{
	dd if=/dev/urandom of=/dev/mapper/v bs=256k count=20 seek=$(($1 * 20 % 80)) oflag=direct status=none || return 1
	works create v || return 1
	g=$(($1 + 2)) s=$(sum /dev/mapper/v)
	sums[g]=$s
}

declare -a sums

gentle()
{
	local i r=0

	for ((i = 1; i < 24; i++)); do
		round $i || return 1
		settled
		generation "v@$g" "$s" || { out="the newest, $g: $out"; return 1; }
	done
	return $r
}

need null_disk fullp 64
need null_disk fulld 64
dd if=/dev/urandom of=/dev/fullp bs=1M count=64 oflag=direct status=none
need works attach v /dev/fullp /dev/fulld --format --on-full drop-oldest
snapctl monitor --json --timeout 900 >/tmp/events 2>/dev/null &
monitor=$!
sleep 0.3
works create v
sums[1]=$(sum /dev/mapper/v)
works pin v@1
round 0
dev2=$(snapctl activate v@1)
ok "24 rounds of 5 MiB: the newest generation is good after each" gentle
echo "# $(states)"
ok "generations were given up" event lost
ok "there was a warning before" before low-space lost
ok "they were given up before the diff was full" eval '! event full'
ok "the pinned one that is in use is there" is_live 1
ok "and good" reads_as "$dev2" "${sums[1]}"
first=$(live | sed -n 2p)
ok "of the others the oldest have gone: all after the first live one are live" eval \
	'[ "$(live | tail -n +2 | wc -l)" -eq $((g - first + 1)) ]'
ok "the oldest of them is good" generation "v@$first" "${sums[$first]:-}"
was=$(states)
snapctl deactivate "$dev2"
ok "detach" wait_for works detach v
ok "attach" works attach v /dev/fullp /dev/fulld
ok "lost is lost, live is live after attach" equal "$(states)" "$was"
ok "the pinned one is good" generation v@1 "${sums[1]}"
ok "the newest is good" generation "v@$g" "$s"
wait_for works detach v
kill $monitor
wait $monitor 2>/dev/null
null_gone fullp fulld

# The storm: first writes of new intervals all the time, far faster than anything can be kept.
need null_disk fullp 512
need null_disk fulld 64
need works attach v /dev/fullp /dev/fulld --format --on-full drop-oldest
works create v
blow() { quiet storm write /dev/mapper/v "$storm_mib" 65536 8 7 48 v && blown=$out; }
blown=
ok "a storm of $storm_mib MiB with 48 cuts" blow
printf '%s\n' "$blown" | sed 's/^/# /'
echo "# $(states)"
ok "the store has not failed" eval '! snapctl status v | grep -qi failed'
ok "the volume has what was written last" quiet storm verify /dev/mapper/v "$storm_mib" 65536 8 7
ok "so has the primary" quiet storm verify /dev/fullp "$storm_mib" 65536 8 7
ok "detach" wait_for works detach v
ok "the store is whole" quiet snapmeta check --data /dev/fulld
finish
