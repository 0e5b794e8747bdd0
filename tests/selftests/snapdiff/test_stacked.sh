#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1 uml-6.12-debug
# disks: 64M 64M 64M
# timeout: 200
#
# A volume whose primary is another volume. Both are cut at one instant, named in any order, while the upper one is written.
#
# Without the order of cut_order(), and the lower one named first, its gate is closed while writes are under way on the upper one: these stay at the lower gate, and the
# upper gate waits for them, for ever.

. "${BASH_SOURCE%/*}/lib.sh"

cuts()
{
	local i

	for i in $(seq 20); do
		out=$(timeout -s KILL 20 snapctl create "$@" 2>&1) || { out="cut $i: status $?: $out"; return 1; }
	done
}

same_content()
{
	local a b

	works activate low@20 && a=$out && works activate up@20 && b=$out || return 1
	out="$(sum "$a") $(sum "$b")"
	[ "$(sum "$a")" = "$(sum "$b")" ]
}

need works attach low "$DISK1" "$DISK2" --format
need works attach up /dev/mapper/low "$DISK3" --format
fio --name=w --filename=/dev/mapper/up --ioengine=libaio --direct=1 --rw=randwrite --bs=16k --iodepth=32 --time_based --runtime=1000 --thread >/dev/null 2>&1 &
writer=$!
sleep 1
ok "the lower one named first" cuts low up
ok "both at one instant" same_content
works deactivate low@20
works deactivate up@20
ok "the upper one named first" cuts up low
kill $writer
wait $writer
ok "detach the upper one" works detach up
ok "detach the lower one" works detach low
finish
