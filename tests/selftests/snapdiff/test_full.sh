#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1 uml-6.12-debug
# timeout: 180
#
# A full diff: writes go on, the policy says which generations are given up, and those are errors for ever.

. "${BASH_SOURCE%/*}/lib.sh"

fill() { dd if=/dev/urandom of=/dev/mapper/v bs=256k count="$1" seek="${2:-0}" oflag=direct status=none; }
state() { snapctl list v -n -o state | tr '\n' ' '; }
lost() { snapctl list v -n -o generation,state | grep -qE "^ *$1 +lost"; }

# start POLICY: generations 1 and 2, four MiB copied; $g2 and $now are sums
start()
{
	null_disk fullp 24
	null_disk fulld 18
	dd if=/dev/urandom of=/dev/fullp bs=1M count=24 oflag=direct status=none
	works attach v /dev/fullp /dev/fulld --format --on-full "$1" && works create v || return 1
	fill 8 0
	works create v || return 1
	g2=$(sum /dev/mapper/v)
	fill 8 32
}

# The rest of the volume: far more than the diff holds. Its content is compared with what was written.
overrun()
{
	dd if=/dev/urandom of=/tmp/new bs=1M count=24 status=none
	quiet dd if=/tmp/new of=/dev/mapper/v bs=1M oflag=direct || return 1
	cmp /tmp/new /dev/mapper/v && cmp /tmp/new /dev/fullp
}

end()
{
	snapctl detach v
	null_gone fullp fulld
}

for policy in drop-oldest drop-all fail-snapshots; do
	need start $policy
	ok "$policy: all are live at first" equal "$(state)" "live live "
	dev=$(snapctl activate v@1)
	snapctl monitor --json --timeout 600 >/tmp/events 2>/dev/null &
	monitor=$!
	sleep 0.3
	ok "$policy: writes go on, the primary has them" overrun
	works list v
	echo "# $out"
	ok "$policy: the oldest is lost" wait_for lost 1
	ok "$policy: it was active, its device says EIO" eio "$dev"
	snapctl deactivate "$dev"
	ok "$policy: a lost generation is not activated" refused 6 "lost" activate v@1
	ok "$policy: there are events" grep -q '"lost"\|"store-failed"' /tmp/events
	kill $monitor
	wait $monitor 2>/dev/null
	before=$(state)
	now=$(sum /dev/fullp)
	works detach v
	ok "$policy: detach" test "$rc" -eq 0
	if [ $policy = fail-snapshots ]; then
		run attach v /dev/fullp /dev/fulld
		echo "# attach of a failed store: $rc $out"
		if [ "$rc" -eq 0 ]; then
			ok "$policy: lost after attach, too" equal "$(state)" "$before"
			ok "$policy: and not to be activated" refused 6 "" activate v@2
		fi
		ok "$policy: the primary is as it was" equal "$(sum /dev/fullp)" "$now"
	else
		works attach v /dev/fullp /dev/fulld
		ok "$policy: lost after attach, too" equal "$(state)" "$before"
		ok "$policy: and not to be activated" refused 6 "lost" activate v@1
		ok "$policy: a new generation can be cut" works create v
		g3=$(sum /dev/mapper/v)
		fill 8
		ok "$policy: and is good" generation v@3 "$g3"
	fi
	end
done

need start drop-oldest
works pin v@1
overrun
ok "drop-oldest: an unpinned one goes before a pinned one" lost 2
end
finish
