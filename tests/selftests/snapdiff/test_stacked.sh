#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1 uml-6.12-debug
# disks: 64M 64M 64M 64M
# timeout: 200
#
# A volume whose primary is another volume. Both are cut at one instant, named in any order, while the upper one is written.
#
# Without the order of cut_order(), and the lower one named first, its gate is closed while writes are under way on the upper one: these stay at the lower gate, and the
# upper gate waits for them, for ever.
#
# And a volume whose differential volume lies on another one: they cannot be cut at one instant. That is refused, or, where it cannot be seen (a dm device in between), given up
# after a while; it used to hang for ever.

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
first=$(($(snapctl list low -n -o generation | tail -n 1) + 1))

# no_more_than N: generations of each, those of before not counted
no_more_than()
{
	json "len([g for g in d['generations'] if g['state'] == 'live']) == $1" list up &&
		json "len([g for g in d['generations'] if g['generation'] >= $first]) == $1" list low
}

need works attach up "$DISK4" /dev/mapper/low --format
ok "its diff is the other one: refused" refused 1 "up: its differential volume lies on low" create low up
ok "each for itself" eval 'works create low && works create up'
need works detach up
need dmsetup create between --table "0 $(blockdev --getsz /dev/mapper/low) linear /dev/mapper/low 0"
need works attach up "$DISK4" /dev/mapper/between
(sleep 2; dd if=/dev/urandom of=/dev/mapper/up bs=4k count=1 oflag=direct status=none) &
writer=$!
ok "its diff lies on the other one: given up" refused 6 "was not durable within" create low up
ok "no generation is left of it" no_more_than 1
ok "writes go on" wait $writer
ok "each for itself, again" eval 'works create up && works create low && no_more_than 2'
ok "detach both" eval 'works detach up && dmsetup remove between && works detach low'
finish
