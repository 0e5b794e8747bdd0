#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1 uml-6.12-debug
# disks: 64M 64M 64M 64M
# timeout: 400
#
# The netlink family against requests that no decent client sends; dumps that need many calls, that are interrupted,
# that outlive their volume.

set -u
. "$(dirname "$0")/ktap.sh"

# Numbers of linux/snapdiff.h; the order in the enums is part of the interface.
VOLUME_GET=1 VOLUME_SET=2 GEN_CREATE=3 GEN_GET=4 GEN_DELETE=5 GEN_BOOKMARK=6 GEN_PIN=7 GEN_LABEL=8
VIRT_ACTIVATE=9 VIRT_DEACTIVATE=10 VIRT_GET=11 MAP_GET=12 CHANGES_GET=13 EVENT=14
VOLUME=2 GEN=4 GEN_LAST=5 LABEL=7 FREEZE=8 PINNED=9 VIRT_INDEX=10 OPENERS=12 ON_FULL=16
EPERM=1 ENOENT=2 EBUSY=16 ENODEV=19 EINVAL=22 ERANGE=34 EOPNOTSUPP=95
DO="$VOLUME_GET $VOLUME_SET $GEN_CREATE $GEN_GET $GEN_DELETE $GEN_BOOKMARK $GEN_PIN $GEN_LABEL $VIRT_ACTIVATE $VIRT_DEACTIVATE"
DUMP="$VOLUME_GET $GEN_GET $VIRT_GET $MAP_GET $CHANGES_GET"
GOOD="$VOLUME:str:v $GEN:u32:1"

# refused ERRNO TEXT ARG...: nlprobe ARG... gets the errno, the extended ack holds TEXT
refused()
{
	local errno=$1 text=$2
	shift 2
	run nlprobe "$@"
	[ "$rc" -eq 1 ] && [[ $out == *"error $errno "*"$text"* ]]
}

# all_refused ERRNO OPTIONS COMMANDS ATTRIBUTES
all_refused()
{
	local cmd
	for cmd in $3; do
		# shellcheck disable=SC2086
		refused "$1" "" $2 "$cmd" $4 || return 1
	done
}

state()
{
	{ nlprobe -d $VOLUME_GET; nlprobe -d $GEN_GET; nlprobe -d $VIRT_GET; } | sed 's/29=.*//'
}

# messages N: the last output has N messages and an end without complaint
messages()
{
	[ "$(grep -c '^message' <<< "$out")" -eq "$1" ] && [ "$(tail -n 1 <<< "$out")" = done ]
}

count_dump()
{
	local n=$1
	shift
	works nlprobe -d "$@" && messages "$n"
}

# extents CONDITION ARG...: of the dump, as list of (offset, length, place, where); e is the list, m the number of messages
extents()
{
	local cond=$1
	shift
	run nlprobe -d "$@"
	printf '%s\n' "$out" > /tmp/extents
	python3 - "$cond" << 'EOF'
import struct, sys
e, m, end = [], 0, None
for line in open('/tmp/extents'):
    f = line.split()
    if f[0] == 'message':
        m += 1
        for a in f[3:]:
            n, _, h = a.partition('=')
            if n == '15':
                e += [x[:4] for x in struct.iter_unpack('=QQQII', bytes.fromhex(h))]
    elif f[0] == 'done':
        end = ' '.join(f)
ordered = all(a[0] + a[1] <= b[0] for a, b in zip(e, e[1:]))
complete = ordered and all(a[0] + a[1] == b[0] for a, b in zip(e, e[1:]))
total = sum(x[1] for x in e)
if end != 'done' or not eval(sys.argv[1]):
    print('# %d messages, %d extents, ordered %s, complete %s, total %d, end %s' % (m, len(e), ordered, complete, total, end))
    sys.exit(1)
EOF
}

# interrupted COMMAND NLPROBE-ARG...: run COMMAND after the first buffer of a dump
interrupted()
{
	local cmd=$1 pid
	shift
	: > /tmp/wait
	nlprobe -d -b 4096 -w /tmp/wait "$@" > /tmp/dump 2>&1 &
	pid=$!
	for _ in $(seq 100); do
		grep -q message /tmp/dump && break
		sleep 0.1
	done
	eval "$cmd"
	rm /tmp/wait
	wait $pid
	rc=$?
	out=$(cat /tmp/dump)
}

ends_with()
{
	[[ "$(tail -n 1 <<< "$out")" == $1 ]]
}

snapctl attach v "$DISK1" "$DISK2" --format > /dev/null || exit 1
snapctl attach w "$DISK3" "$DISK4" --format > /dev/null || exit 1
snapctl create v > /dev/null || exit 1
before=$(state)

# ---- privileges ----

ok "a user without capabilities may do nothing" all_refused $EPERM "-u 65534" "$DO" "$VOLUME:str:v"
ok "nor dump anything" all_refused $EPERM "-d -u 65534" "$DUMP" ""
ok "CAP_NET_ADMIN is not enough" all_refused $EPERM "-N" "$DO" "$VOLUME:str:v"
ok "nor for a dump" all_refused $EPERM "-d -N" "$DUMP" ""
ok "events are not for everybody" fails nlprobe -u 65534 -g events
ok "events are for the administrator" works nlprobe -g events

# ---- validation ----

ok "an unknown attribute is refused" all_refused $EINVAL "" "$DO" "$GOOD 99:u32:1"
ok "an unknown attribute of a dump is refused" all_refused $EINVAL "-d" "$DUMP" "99:u32:1"
ok "an attribute of another operation is refused" all_refused $EINVAL "" "$DO" "$GOOD $OPENERS:u32:1"
ok "the same in a dump" all_refused $EINVAL "-d" "$DUMP" "$VOLUME:str:v $OPENERS:u32:1"
ok "a number of the wrong size is refused" refused $EINVAL "" $GEN_GET $VOLUME:str:v $GEN:u8:1
ok "a longer one, too" refused $EINVAL "" $GEN_GET $VOLUME:str:v $GEN:u64:1
ok "generation 0 is refused" refused $ERANGE "" $GEN_GET $VOLUME:str:v $GEN:u32:0
ok "a name without its end is refused" refused $EINVAL "" $VOLUME_GET $VOLUME:raw:v
ok "a name that is too long is refused" refused $EINVAL "" $VOLUME_GET "$VOLUME:str:$(printf '%0128d' 0)"
ok "a label that is too long is refused" refused $EINVAL "" $GEN_LABEL $GOOD "$LABEL:str:$(printf '%064d' 0)"
ok "an unknown policy is refused" refused $ERANGE "" $VOLUME_SET $VOLUME:str:v $ON_FULL:u8:3
ok "freeze is yes or no" refused $ERANGE "" $GEN_CREATE $VOLUME:str:v $FREEZE:u8:2
ok "an unknown command is refused" refused $EOPNOTSUPP "" 99
ok "an event is no request" refused $EOPNOTSUPP "" $EVENT
ok "what is no dump cannot be dumped" refused $EOPNOTSUPP "" -d $GEN_CREATE $VOLUME:str:v
ok "a dump cannot be done" refused $EOPNOTSUPP "" $MAP_GET $GOOD

# ---- objects ----

ok "a missing volume is named" refused $EINVAL '"volume" is missing' $VOLUME_GET
ok "a missing generation is named" refused $EINVAL '"gen" is missing' $GEN_GET $VOLUME:str:v
ok "a missing label is named" refused $EINVAL '"label" is missing' $GEN_LABEL $GOOD
ok "a missing pin is named" refused $EINVAL '"pinned" is missing' $GEN_PIN $GOOD
ok "a map needs a generation" refused $EINVAL '"gen" is missing' -d $MAP_GET $VOLUME:str:v
ok "an unknown volume" refused $ENODEV 'nope: no such volume' $GEN_GET $VOLUME:str:nope $GEN:u32:1
ok "an unknown volume of a dump" refused $ENODEV 'nope: no such volume' -d $GEN_GET $VOLUME:str:nope
ok "an unknown generation" refused $ENOENT 'v@7: no such generation' $GEN_GET $VOLUME:str:v $GEN:u32:7
ok "an unknown generation to delete" refused $ENOENT 'v@7: no such generation' $GEN_DELETE $VOLUME:str:v $GEN:u32:7
ok "an empty range" refused $ENOENT 'v@7..9: no such generations' $GEN_DELETE $VOLUME:str:v $GEN:u32:7 $GEN_LAST:u32:9
ok "a range the wrong way round" refused $EINVAL 'v@9..7: not a range' $GEN_DELETE $VOLUME:str:v $GEN:u32:9 $GEN_LAST:u32:7
ok "an unknown disk" refused $ENOENT '/dev/snapvirt5: no such disk' $VIRT_DEACTIVATE $VIRT_INDEX:u32:5
ok "an impossible disk" refused $ENOENT 'no such disk' $VIRT_DEACTIVATE $VIRT_INDEX:u32:4294967295
ok "a generation that is not active" refused $ENOENT 'v@1: is not active' $VIRT_DEACTIVATE $GOOD
ok "a volume twice in a group" refused $EINVAL 'v: named twice' $GEN_CREATE $VOLUME:str:v $VOLUME:str:w $VOLUME:str:v
ok "a group with an unknown volume" refused $ENODEV 'nope: no such volume' $GEN_CREATE $VOLUME:str:v $VOLUME:str:nope
out=$(state)
ok "nothing has changed" test "$out" = "$before"

# ---- thousands, each with something wrong ----

for seed in 1 2 3; do
	ok "random requests are refused with a reason (seed $seed)" works nlhostile $seed 1500 v
	echo "# $(tail -n 1 <<< "$out")"
done
ok "dumps of 300 sockets are left half-way" works nlhostile -d 300 v
out=$(state)
ok "still nothing has changed" test "$out" = "$before"

# ---- groups ----

ok "a group is answered in the order of the request" works nlprobe $GEN_CREATE $VOLUME:str:w $VOLUME:str:v $LABEL:str:both
ok "w, then v" test "$(grep -o '6=[0-9a-f]*' <<< "$out" | cut -c 3-22 | paste -sd' ')" = \
	"06000200770000000800 06000200760000000800"
ok "a pinned generation is not deleted" works nlprobe $GEN_PIN $VOLUME:str:v $GEN:u32:2 $PINNED:u8:1
ok "as the answer says" refused $EBUSY 'v@2: is pinned' $GEN_DELETE $VOLUME:str:v $GEN:u32:2
ok "nor a range with one" refused $EBUSY 'v@2: is pinned' $GEN_DELETE $VOLUME:str:v $GEN:u32:1 $GEN_LAST:u32:9
ok "unpin" works nlprobe $GEN_PIN $VOLUME:str:v $GEN:u32:2 $PINNED:u8:0
ok "the policy can be changed" works nlprobe $VOLUME_SET $VOLUME:str:v $ON_FULL:u8:2
ok "and is shown" prints fail-snapshots snapctl status v -n -o on_full

# ---- dumps ----

for _ in $(seq 150); do
	nlprobe $GEN_CREATE $VOLUME:str:v $VOLUME:str:w "$LABEL:str:a label that is long enough to fill messages" > /dev/null
done
ok "a dump in many calls has everything" count_dump 303 -b 4096 $GEN_GET
ok "each generation once" test "$(grep ^message <<< "$out" | cut -d' ' -f4 | sort -u | wc -l)" -eq 303
ok "of one volume" count_dump 152 -b 4096 $GEN_GET $VOLUME:str:v
interrupted "snapctl create v > /dev/null" $GEN_GET
ok "a dump that is no longer true says so" ends_with "done intr"
interrupted "snapctl delete v@100 > /dev/null" $GEN_GET
ok "a deletion, too" ends_with "done intr"
interrupted ":" $GEN_GET
ok "an undisturbed one does not" ends_with done

# 4 KiB every 8 KiB: as many extents as can be
fio --name=x --filename=/dev/mapper/v --rw=write:4k --bs=4k --direct=1 --size=32M --io_size=16M --eta=never --output=/dev/null
all="ordered and complete and total == 64 << 20"
ok "a map in many messages is complete" extents "$all and m > 20 and len(e) >= 8192" -b 4096 $MAP_GET $VOLUME:str:v $GEN:u32:50
ok "the same in few" extents "$all and m < 30 and len(e) >= 8192" $MAP_GET $VOLUME:str:v $GEN:u32:50
ok "a part of it" extents "complete and e[0][0] == 8192 and total == 16384" $MAP_GET $VOLUME:str:v $GEN:u32:50 \
	13:u64:8192 14:u64:16384
ok "nothing beyond the end" extents "not e" $MAP_GET $VOLUME:str:v $GEN:u32:50 13:u64:$((1 << 40))
ok "no overflow" extents "complete and e[0][0] == 4096" $MAP_GET $VOLUME:str:v $GEN:u32:50 13:u64:4096 14:u64:-1
ok "changes are what was written" extents "ordered and total == 16 << 20 and len(e) == 4096" \
	-b 4096 $CHANGES_GET $VOLUME:str:v $GEN:u32:153
ok "nothing changed before" extents "not e" $CHANGES_GET $VOLUME:str:v $GEN:u32:1 $GEN_LAST:u32:153
ok "from the new to the old is refused" refused $EINVAL 'older' -d $CHANGES_GET $VOLUME:str:v $GEN:u32:3 $GEN_LAST:u32:2
ok "a map of what is not there" fails nlprobe -d $MAP_GET $VOLUME:str:v $GEN:u32:999
interrupted "snapctl delete v@50 > /dev/null" $MAP_GET $VOLUME:str:v $GEN:u32:50
ok "a map whose generation goes away ends with an error" ends_with "error $ENOENT *"
interrupted "snapctl detach v" $MAP_GET $VOLUME:str:v $GEN:u32:51
ok "a map whose volume goes away ends with an error" ends_with "error $ENODEV *"
interrupted "snapctl detach w" $GEN_GET
ok "a dump whose volumes go away says so" ends_with "done intr"
ok "the module can go" works rmmod snapdiff
finish
