#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1
# disks: 32M 96M 32M
# timeout: 900
#
# The management client: four machines in network namespaces, each with its own address. The storage host (the guest itself) has the
# volume and the agent, and is the only one that both others can reach.
#
#	manager 10.9.2.2 ──── 10.9.2.1 storage host 10.9.1.1 ──── 10.9.1.2 media server
#					10.9.3.1
#	client  10.9.3.2 ──────────────────┘	(whose writes come over its own link)

set -u
. "$(dirname "$0")/ktap.sh"

SECTORS=49152
AGENT=10.9.2.1
MEDIA=10.9.1.2
export SNAPDIFF_STATE_DIR=/tmp/state SNAPDIFF_CONFIG_DIR=/tmp/etc SNAPDIFF_SSH=/tmp/stalling
agent= server=

# ---- machines ----

machine()	# NAME OUR-ADDRESS ITS-ADDRESS
{
	ip netns add "$1" && ip link add "to-$1" type veth peer name eth0 netns "$1" && ip addr add "$2/30" dev "to-$1" &&
		ip link set "to-$1" up && ip -n "$1" addr add "$3/30" dev eth0 && ip -n "$1" link set eth0 up && ip -n "$1" link set lo up
}

on()		# MACHINE COMMAND...: as somebody with files of his own there
{
	ip netns exec "$1" env SNAPDIFF_CONFIG_DIR="/tmp/etc-$1" SNAPDIFF_STATE_DIR="/tmp/state-$1" "${@:2}"
}

listening()	# FILE
{
	for _ in $(seq 200); do
		grep -q "^listening" "$1" && return 0
		sleep 0.05
	done
	return 1
}

start_agent()
{
	: > /tmp/agent.port
	snapagentd --listen $AGENT --foreground > /tmp/agent.port 2>> /tmp/agent.log &
	agent=$!
	listening /tmp/agent.port
}

start_media()
{
	: > /tmp/media.port
	# Not by on(): $! has to be the server
	ip netns exec media snapmediad /tmp/media --listen $MEDIA --foreground > /tmp/media.port 2>> /tmp/media.log &
	server=$!
	listening /tmp/media.port
}

stop()		# PID
{
	kill "$1" && wait "$1"
}

# ---- what is done ----

m()		# COMMAND...: by the manager; $out, $rc
{
	run on manager "$@"
}

mw()
{
	m "$@"
	[ "$rc" -eq 0 ]
}

refused()	# STATUS TEXT COMMAND...: by the manager
{
	m "${@:3}"
	[ "$rc" = "$1" ] && [[ $out == *"$2"* ]]
}

enroll_manager()	# NAME ROLE
{
	local line pin
	line=$(on "$1" snapbackup enroll --agent $AGENT --pin "$APIN" --role "$2") || return 1
	pin=$(printf '%s' "$line" | sed -n 's/^snapagentd client add .*--pin \([^ ]*\) .*/\1/p')
	[ -n "$pin" ] && works snapagentd client add "$1" --pin "$pin" --role "$2"
}

# scatter COUNT SEED: random 4 KiB blocks; by the client, over its link
scatter()
{
	on client python3 - "$1" "$2" <<-'PY'
		import os, random, socket, sys
		s = socket.create_connection(('10.9.3.1', 9000))
		for b in random.Random(int(sys.argv[2])).sample(range(6144), int(sys.argv[1])):
		    s.sendall(b.to_bytes(8, 'big') + os.urandom(4096))
		s.shutdown(socket.SHUT_WR)
		assert s.recv(2) == b'ok'
	PY
}

serve_blocks()
{
	python3 - <<-'PY' &
		import os, socket
		l = socket.create_server(('10.9.3.1', 9000))
		while True:
		    c, _ = l.accept()
		    f, s = os.open('/dev/mapper/vol', os.O_WRONLY), c.makefile('rb')
		    while True:
		        h = s.read(8)
		        if len(h) < 8: break
		        os.pwrite(f, s.read(4096), int.from_bytes(h, 'big') * 4096)
		    os.fsync(f); os.close(f)
		    c.sendall(b'ok')
	PY
	for _ in $(seq 100); do
		ss -ltn | grep -q 9000 && return 0
		sleep 0.05
	done
	return 1
}

take()		# N: a generation by the manager's order, its sum noted
{
	mw snapctl --host $AGENT create vol && [ "$out" = "vol@$1" ] || return 1
	dev=$(snapctl activate "vol@$1") && sha256sum < "$dev" | cut -d' ' -f1 > "/tmp/sum.$1" && works snapctl deactivate "$dev"
}

stored()	# N
{
	works snaprestore --from $MEDIA --volume vol --gen "$1" --to /tmp/r -q --force || return 1
	out="$(sha256sum < /tmp/r | cut -d' ' -f1)"
	[ "$out" = "$(cat "/tmp/sum.$1")" ]
}

traffic()	# LINK: bytes both ways
{
	echo $(($(cat "/sys/class/net/$1/statistics/rx_bytes") + $(cat "/sys/class/net/$1/statistics/tx_bytes")))
}

jobs_state()	# ID: by the manager
{
	on manager snapbackup --host $AGENT --jobs --json | python3 -c "
import json, sys
print([j['state'] for j in json.load(sys.stdin)['jobs'] if j['job'] == $1][0])"
}

within()	# SECONDS COMMAND...: it becomes true in so much time
{
	local until=$((SECONDS + $1))

	while ! "${@:2}"; do
		[ $SECONDS -lt $until ] || return 1
		sleep 0.1
	done
}

is_state()	# ID STATE: as it is on disk
{
	grep -q "\"state\":\"$2\"" "/tmp/state/jobs/$1/state.json" 2> /dev/null
}

wait_state()	# ID STATE
{
	within 60 is_state "$1" "$2" && out=$(jobs_state "$1") && [ "$out" = "$2" ]
}

some_sent()	# ID
{
	local done
	done=$(sed -n 's/.*"done":\([0-9]*\).*/\1/p' "/tmp/state/jobs/$1/progress.json" 2> /dev/null)
	[ "${done:-0}" -gt 300000 ]
}

# slow_job GEN: $job, some of which is sent and most of which is not
slow_job()
{
	conf 300K
	mw snapbackup --host $AGENT vol --gen "$1" --dest slow --detach && job=$out && within 60 some_sent "$job" && conf 100M && is_state "$job" running
}

idle()		# nothing pinned, active
{
	run snapctl list vol -n -o pinned,device
	[[ $out != *yes* ]] && [[ $out != *snapvirt* ]]
}

conf()		# RATE
{
	mkdir -p /tmp/etc
	cat > /tmp/etc/agent.conf <<-CONF
		[agent]
		max-jobs = 2
		[destination media]
		address = $MEDIA
		[destination slow]
		address = $MEDIA
		rate = ${1:-100M}
	CONF
}

# ---- cases ----

init()
{
	APIN=$(snapagentd init) && [ "$(snapagentd init)" = "$APIN" ] && [ "$(stat -c %a /tmp/state/agent/server.key)" = 600 ] || return 1
	local pin
	MPIN=$(on media snapmediad init /tmp/media) &&
		pin=$(snapbackup enroll $MEDIA --pin "$MPIN" --role backup,restore | sed -n 's/.*--pin \([^ ]*\) .*/\1/p') &&
		snapbackup enroll $MEDIA:9 --pin "$MPIN" > /dev/null &&
		works on media snapmedia client add nas --pin "$pin" --role backup,restore --repo /tmp/media && start_media && start_agent
}

unknown()
{
	refused 2 "not a loopback address" snapctl --host $AGENT list || return 1
	on manager snapbackup enroll --agent $AGENT --pin "$APIN" > /dev/null || return 1
	refused 2 "does not know our key" snapctl --host $AGENT list || return 1
	enroll_manager manager operator
}

listed()	# the same words there as here
{
	take 1 && mw snapctl --host $AGENT list vol && [ "$out" = "$(snapctl list vol)" ] || return 1
	mw snapctl --host $AGENT list --json && [ "$out" = "$(snapctl list --json)" ] || return 1
	mw snapctl --host $AGENT status vol -o volume,size,diff,live,on_full && [ "$out" = "$(snapctl status vol -o volume,size,diff,live,on_full)" ] || return 1
	refused 4 "no volume" snapctl --host $AGENT list nowhere || refused 4 "nowhere" snapctl --host $AGENT list nowhere
}

changed()
{
	mw snapctl --host $AGENT pin vol@1 && mw snapctl --host $AGENT list vol -o pinned -n && [[ $out == yes* ]] || return 1
	refused 5 "pinned" snapctl --host $AGENT delete vol@1 || return 1
	mw snapctl --host $AGENT unpin vol@1 || return 1
	refused 4 "vol" snapctl --host $AGENT delete vol@1 vol@77 && [ "$(snapctl list vol -n | wc -l)" = 1 ] || return 1
	refused 1 "NAME@N" snapctl --host $AGENT pin vol || return 1
	refused 1 "not with --host" snapctl --host $AGENT map vol@1
}

backup()	# the receipt at the end; what the manager's link carried is orders
{
	local before after sent
	before=$(traffic to-manager)
	sent=$(traffic to-media)
	mw snapbackup --host $AGENT vol --gen 1 --dest media --json -q || return 1
	after=$(traffic to-manager)
	sent=$(($(traffic to-media) - sent))
	[ "$(printf '%s' "$out" | python3 -c "import json, sys; r = json.load(sys.stdin); print(r['generation'], r['base'], r['state'])")" = "1 None new" ] || return 1
	out="manager's link $((after - before)) bytes, media server's $sent"
	echo "# $out"
	[ $((after - before)) -lt 100000 ] && [ "$sent" -gt 20000000 ] && stored 1
}

not_anywhere()
{
	refused 2 "not a destination" snapbackup --host $AGENT vol --gen 1 --dest 10.9.2.2 || return 1
	refused 2 "not a destination" snapbackup --host $AGENT vol --gen 1 --dest /tmp/stolen || return 1
	refused 2 "not a destination" snapbackup --host $AGENT vol --gen 1 --dest - || return 1
	refused 4 "no generation" snapbackup --host $AGENT vol --gen 9 --dest media || refused 4 "vol" snapbackup --host $AGENT vol --gen 9 --dest media || return 1
	[ ! -e /tmp/stolen ] && mw snapbackup --host $AGENT --dests && [[ $out == *slow* ]]
}

roles()		# each for what it must not do
{
	local c
	enroll_manager client auditor && works on client snapctl --host $AGENT list vol && works on client snapbackup --host $AGENT --jobs || return 1
	for c in "snapctl --host $AGENT create vol" "snapctl --host $AGENT delete vol@1" "snapctl --host $AGENT pin vol@1" \
		"snapctl --host $AGENT bookmark vol@1" "snapbackup --host $AGENT vol --gen 1 --dest media" "snapbackup --host $AGENT --cancel 1"; do
		# shellcheck disable=SC2086
		run on client $c
		[ $rc = 2 ] && [[ $out == *"may not"* ]] || return 1
	done
	works snapagentd client set client --role backup || return 1
	for c in "snapctl --host $AGENT delete vol@1" "snapctl --host $AGENT pin vol@1" "snapctl --host $AGENT bookmark vol@1" \
		"snapbackup --host $AGENT vol --gen 1 --dest media --keep bookmark"; do
		# shellcheck disable=SC2086
		run on client $c
		[ $rc = 2 ] && [[ $out == *"may not"* ]] || return 1
	done
	# Jobs of others are not there
	run on client snapbackup --host $AGENT --cancel 1
	[ $rc = 4 ] || return 1
	run on client snapbackup --host $AGENT --jobs --json
	[ $rc = 0 ] && [[ $out != *'"job"'* ]] && [ "$(snapctl list vol -n | wc -l)" = 1 ]
}

manager_leaves()	# the job does not
{
	local pid job=
	conf 1M
	scatter 2000 2 && take 2 || return 1
	ip netns exec manager env SNAPDIFF_CONFIG_DIR=/tmp/etc-manager snapbackup --host $AGENT vol --gen 2 --dest slow --json 2> /tmp/err > /tmp/receipt &
	pid=$!
	for _ in $(seq 100); do
		job=$(sed -n 's/.*: job \([0-9]*\)$/\1/p' /tmp/err)
		[ -n "$job" ] && break
		sleep 0.1
	done
	within 60 some_sent "$job" || { out=$(cat /tmp/err); return 1; }
	kill -9 $pid
	wait $pid 2> /dev/null
	[ "$(jobs_state "$job")" = running ] || return 1
	refused 5 "is sending it" snapbackup --host $AGENT vol --gen 2 --dest media || return 1
	mw snapbackup --host $AGENT --job "$job" --json -q && [[ $out == *'"generation":2'* ]] && [[ $out == *'"base":1'* ]] && stored 2 || return 1
	# Picked up once more: it is done, and says so
	mw snapbackup --host $AGENT --job "$job" --json -q && [[ $out == *'"generation":2'* ]] || return 1
	refused 5 "is done" snapbackup --host $AGENT --cancel "$job"
}

cancelled_and_picked_up()
{
	local job
	scatter 2000 3 && take 3 && slow_job 3 || return 1
	mw snapbackup --host $AGENT --cancel "$job" && wait_state "$job" cancelled && idle || return 1
	mw snapbackup --host $AGENT --job "$job" --json -q && [[ $out == *'"state":"resumed"'* ]] && stored 3
}

server_leaves()		# the job fails and says why; picked up, it sends the rest
{
	local job
	scatter 2000 4 && take 4 && slow_job 4 || return 1
	stop $server
	wait_state "$job" failed && idle || return 1
	refused 6 "picks it up" snapbackup --host $AGENT --job "$job" || return 1	# nobody there: fails again
	start_media && mw snapbackup --host $AGENT --job "$job" --json -q && [[ $out == *'"state":"resumed"'* ]] && stored 4
}

agent_leaves()		# asked to: the job is interrupted; killed: it goes on
{
	local job
	scatter 2000 5 && take 5 && slow_job 5 || return 1
	kill -9 "$agent" && wait "$agent" 2> /dev/null
	start_agent && [ "$(jobs_state "$job")" = running ] || return 1
	stop "$agent" || return 1
	within 60 is_state "$job" interrupted && start_agent && [ "$(jobs_state "$job")" = interrupted ] && idle || return 1
	# Killed in the middle, with all that belongs to it: nobody has noted anything
	conf 300K
	rm "/tmp/state/jobs/$job/progress.json"
	mw snapbackup --host $AGENT --job "$job" --detach && within 60 some_sent "$job" || return 1
	kill -9 "$(cat "/tmp/state/jobs/$job/lock")"
	conf 100M
	[ "$(jobs_state "$job")" = interrupted ] && within 30 idle || return 1	# the kernel has told snapbackup
	mw snapbackup --host $AGENT --job "$job" --json -q && [[ $out == *'"state":"resumed"'* ]] && stored 5
}

limit()		# two at once; then a third
{
	local a b job
	snapctl bookmark vol@1 || return 1
	scatter 2000 6 && take 6 && scatter 2000 7 && take 7 && scatter 10 8 && take 8 && slow_job 6 && a=$job && slow_job 7 && b=$job || return 1
	refused 5 "the limit of this host" snapbackup --host $AGENT vol --gen 8 --dest media || return 1
	mw snapbackup --host $AGENT --cancel "$a" && mw snapbackup --host $AGENT --cancel "$b" && wait_state "$a" cancelled && wait_state "$b" cancelled
}

# ---- restores by the manager ----

INTO=/tmp/restores

# A media server that becomes slow in the middle, while /tmp/stall is there
stalling_media()
{
	cat > /tmp/stalling <<-'SSH'
		#!/bin/bash
		# stands for ssh
		snapmediad --stdio --client nas --quiet /tmp/media | {
			dd bs=65536 count=100 status=none
			while [ -e /tmp/stall ]; do dd bs=65536 count=1 status=none; sleep 0.4; done
			exec cat
		}
	SSH
	chmod +x /tmp/stalling
}

conf_restore()
{
	conf
	cat >> /tmp/etc/agent.conf <<-CONF
		[destination stalling]
		address = ssh://media/tmp/media
		[restore]
		target = $DISK1
		target = $DISK3
		directory = $INTO
	CONF
}

mr()		# OPTION...: the manager has a restore done
{
	m snaprestore --host $AGENT --volume vol "$@"
}

no_restore()	# STATUS TEXT OPTION...: refused
{
	mr "${@:3}"
	[ "$rc" = "$1" ] && [[ $out == *"$2"* ]]
}

is_gen()	# N FILE: byte by byte, as far as the image goes
{
	out=$(head -c $((SECTORS * 512)) "$2" | sha256sum | cut -d' ' -f1)
	[ "$out" = "$(cat "/tmp/sum.$1")" ]
}

restore_roles()	# the operator may not, unless it is said; who may restore may do nothing else
{
	local c
	mkdir -m 700 $INTO && conf_restore || return 1
	no_restore 2 "may not restore" --from media --gen 1 --to "$DISK3" || return 1
	for c in auditor backup; do
		works snapagentd client set client --role $c || return 1
		run on client snaprestore --host $AGENT --from media --volume vol --gen 1 --to "$DISK3"
		[ $rc = 2 ] && [[ $out == *"may not restore"* ]] || return 1
	done
	works snapagentd client set client --role restore || return 1
	for c in "snapctl --host $AGENT list vol" "snapctl --host $AGENT create vol" "snapctl --host $AGENT delete vol@1" \
		"snapbackup --host $AGENT vol --gen 1 --dest media"; do
		# shellcheck disable=SC2086
		run on client $c
		[ $rc = 2 ] && [[ $out == *"may not"* ]] || return 1
	done
	run on client snaprestore --host $AGENT --targets --json
	[ $rc = 0 ] && [[ $out == *"\"$INTO\""* ]] && [[ $out == *"\"$DISK3\""* ]] && cmp -n 1048576 "$DISK3" /dev/zero || return 1
	works snapagentd client set manager --role operator,restore
}

restore_refused()	# nothing is a target unless it is said; then only that, and not while it is used
{
	local t
	conf
	no_restore 2 "not a target" --from media --gen 1 --to "$DISK3" || return 1
	conf_restore
	for t in "$DISK2" /dev/mapper/vol "$DISK3/" "/dev/../$DISK3" "/tmp/../$DISK3" - x $INTO $INTO/../x $INTO/a/b $INTO/.x $INTO/-x $INTO/x.part \
		/tmp/x /etc/passwd; do
		no_restore 2 "not a target" --from media --gen 1 --to "$t" || return 1
	done
	no_restore 2 "not a destination" --from 10.9.2.2 --gen 1 --to "$DISK3" || return 1
	no_restore 2 "not a destination" --from /tmp/media --gen 1 --to "$DISK3" || return 1
	no_restore 2 "not a destination with a key" --from media --gen 1 --to "$DISK3" --key /etc/shadow || return 1
	no_restore 5 "odd" --from media --gen 1 --to "$DISK1" || return 1		# dm has it
	works mkfs.ext4 -q "$DISK3" && mkdir -p /tmp/mnt && works mount "$DISK3" /tmp/mnt || return 1
	no_restore 5 "mounted" --from media --gen 1 --to "$DISK3" || { umount /tmp/mnt; return 1; }
	works umount /tmp/mnt || return 1
	echo precious > /tmp/precious
	ln -s /tmp/precious $INTO/link
	no_restore 1 "not a file with this name alone" --from media --gen 1 --to $INTO/link || return 1
	chmod 777 $INTO
	no_restore 2 "users other than root" --from media --gen 1 --to $INTO/x || return 1
	chmod 700 $INTO
	no_restore 4 "" --from media --gen 77 --to $INTO/x || return 1
	[ "$(cat /tmp/precious)" = precious ] && rm $INTO/link && [ -z "$(ls -A $INTO)" ] && works dumpe2fs -h "$DISK3"
}

restored()	# onto a device, byte by byte; what the manager's link carried is orders
{
	local before sent
	before=$(traffic to-manager)
	sent=$(traffic to-media)
	mr --from media --gen 2 --to "$DISK3" --json -q || return 1
	before=$(($(traffic to-manager) - before))
	sent=$(($(traffic to-media) - sent))
	[ "$(printf '%s' "$out" | python3 -c "
import json, sys
r = json.load(sys.stdin)
print(r['volume'], r['generation'], r['size'], r['restored_bytes'], r['verified'], len(r['manifest']))")" = \
		"vol 2 $((SECTORS * 512)) $((SECTORS * 512)) manifests 64" ] || return 1
	out="manager's link $before bytes, media server's $sent"
	echo "# $out"
	[ $before -lt 100000 ] && [ $sent -gt 20000000 ] && is_gen 2 "$DISK3" || return 1
	# Onto what is nearly right: what differs
	mr --from media --gen 2 --to "$DISK3" --diff-against-live && [[ $out == *"verified by manifests"* ]] && [[ $out == *" 0 written"* ]] || return 1
	mr --from media --gen 3 --to "$DISK3" --diff-against-live --json -q &&
		[ "$(printf '%s' "$out" | sed 's/.*"written_bytes":\([0-9]*\).*/\1/')" -lt 9000000 ] && is_gen 3 "$DISK3"
}

restored_file()	# one that is there only when it is said; parts
{
	mr --from $MEDIA --gen 1 --to $INTO/disk.img -q && cmp -n $((SECTORS * 512)) $INTO/disk.img "$DISK3" > /dev/null && return 1	# 3 is there
	is_gen 1 $INTO/disk.img && [ "$(stat -c '%s %a' $INTO/disk.img)" = "$((SECTORS * 512)) 600" ] || return 1
	no_restore 5 "exists" --from media --gen 2 --to $INTO/disk.img && is_gen 1 $INTO/disk.img || return 1
	mr --from media --gen 2 --to $INTO/disk.img --force -q && is_gen 2 $INTO/disk.img || return 1
	no_restore 1 "OFFSET:LENGTH" --from media --gen 2 --to $INTO/part --range 1:2 || return 1
	mr --from media --gen 2 --to $INTO/part --range 1M:64K -q && cmp -i 1048576 -n 65536 $INTO/part $INTO/disk.img &&
		cmp -n 1048576 $INTO/part /dev/zero && [ "$(ls $INTO)" = $'disk.img\npart' ]
}

# stalled TARGET GEN: $job, some of which is there
stalled()
{
	touch /tmp/stall
	mr --from stalling --gen "$2" --to "$1" --detach && job=$out && within 60 some_sent "$job" && is_state "$job" running
}

restore_goes_on()	# the manager is killed, the restore is not; nobody else gets the same target
{
	local job pid
	touch /tmp/stall
	ip netns exec manager env SNAPDIFF_CONFIG_DIR=/tmp/etc-manager snaprestore --host $AGENT --from stalling --volume vol --gen 4 --to "$DISK3" \
		> /dev/null 2> /tmp/err &
	pid=$!
	within 60 grep -q ": job [0-9]*$" /tmp/err && job=$(sed -n 's/.*: job \([0-9]*\)$/\1/p' /tmp/err) && within 60 some_sent "$job" ||
		{ out=$(cat /tmp/err "/tmp/state/jobs/$job/"*.json); return 1; }
	kill -9 $pid
	wait $pid 2> /dev/null
	out=$(jobs_state "$job") && [ "$out" = running ] || return 1
	no_restore 5 "is writing it" --from media --gen 1 --to "$DISK3" || return 1
	m snaprestore --host $AGENT --jobs && [[ $out == *restore*vol* ]] || return 1
	rm /tmp/stall
	mw snaprestore --host $AGENT --job "$job" --json -q && [[ $out == *'"generation":4'* ]] && is_gen 4 "$DISK3" || return 1
	# Done stays done
	mw snaprestore --host $AGENT --job "$job" && [[ $out == *"vol@4: on $DISK3"* ]] && refused 5 "is done" snaprestore --host $AGENT --cancel "$job"
}

restore_cancelled()	# nothing is left; picked up, it is done, but only by who may restore
{
	local job
	stalled $INTO/c.img 5 && [ -e $INTO/c.img.part ] || return 1
	mw snaprestore --host $AGENT --cancel "$job" && wait_state "$job" cancelled && [ ! -e $INTO/c.img ] && within 10 [ ! -e $INTO/c.img.part ] || return 1
	rm /tmp/stall
	works snapagentd client set manager --role operator || return 1
	refused 2 "may not restore" snaprestore --host $AGENT --job "$job" || return 1
	works snapagentd client set manager --role operator,restore || return 1
	mw snaprestore --host $AGENT --job "$job" -q && is_gen 5 $INTO/c.img
}

restore_interrupted()	# the agent stops: picked up; not any more when agent.conf has changed its mind
{
	local job
	stalled $INTO/i.img 5 && stop "$agent" || return 1
	within 60 is_state "$job" interrupted && start_agent && [ "$(jobs_state "$job")" = interrupted ] && [ ! -e $INTO/i.img ] || return 1
	rm /tmp/stall
	conf
	refused 2 "not a destination" snaprestore --host $AGENT --job "$job" && [ ! -e $INTO/i.img ] || return 1
	conf_restore
	mw snaprestore --host $AGENT --job "$job" --json -q && is_gen 5 $INTO/i.img
}

# ---- the schedule ----

# schedule ROOM: two destinations, of which one is never there; a cut in each pass
schedule()
{
	conf
	cat >> /tmp/etc/agent.conf <<-CONF
		[destination gone]
		address = $MEDIA:9
		[volume vol]
		cut = 1s
		ship = media
		ship = gone every 1d
		keep-last = 1
		room = $1
	CONF
}

pass()		# STATUS: a pass, in a period of its own
{
	sleep 1.1
	run snapagentd run vol
	[ "$rc" = "$1" ]
}

labelled()	# LABEL STATE: numbers
{
	snapctl list vol --json | python3 -c "
import json, sys
print(*[g['generation'] for g in json.load(sys.stdin)['generations'] if g['label'] == '$1' and g['state'] == '$2'])"
}

says()		# TEXT: $out has it
{
	[[ $out == *"$1"* ]]
}

refused_config()
{
	schedule 10%
	echo 'keep-last = 2' >> /tmp/etc/agent.conf
	run snapagentd run
	[ $rc = 1 ] && says 'agent.conf:16: "keep-last" is there already' || return 1
	refused 1 "agent.conf:16:" snapbackup --host $AGENT --dests
}

dry()
{
	local before
	schedule 10%
	before=$(snapctl list vol)
	works snapagentd run --dry-run && says "vol: would cut" && says "would send generation 9 to media" && says "would send generation 9 to gone" &&
		says "keep generation 9" && [ "$(snapctl list vol)" = "$before" ] && [ -z "$(ls /tmp/state/schedule/*.json 2> /dev/null)" ]
}

cut_and_sent()	# 9 is on media; gone has failed, which is said and is the status; 9 waits for it
{
	pass 6 && says "vol: cut generation 9" && says "generation 9 is on media" && says "generation 9 to gone: job" || return 1
	pass 6 && says "cut generation 10" && says "generation 10 is on media" && ! says "generation 9 is on media" || return 1
	[ "$(labelled scheduled live)" = "9 10" ] && idle
}

given_up()	# no room to wait: 9 is a bookmark, base of what comes; generations of others are as they were
{
	local others
	others="$(labelled '' live) $(labelled '' bookmark)"
	schedule 100%
	pass 6 && says "bookmarked generation" && [ "$(labelled scheduled live)" = 11 ] && [ "$(labelled scheduled bookmark)" = 10 ] &&
		[ "$(labelled '' live) $(labelled '' bookmark)" = "$others" ]
}

# ---- encrypted ----

conf_sealed()
{
	conf_restore
	sed -i 's/^\[restore\]/[destination sealed]\naddress = '$MEDIA'\nkey = \/tmp\/etc\/backup.key\n&/' /tmp/etc/agent.conf
}

cut_now()	# $n: a generation, its sum noted
{
	mw snapctl --host $AGENT create vol && n=${out#vol@} && dev=$(snapctl activate "vol@$n") && sum "$dev" > "/tmp/sum.$n" && works snapctl deactivate "$dev"
}

unsealed()	# N: not without the key, not with another; with it, byte by byte
{
	rm -f /tmp/r
	run snaprestore --from $MEDIA --volume vol --gen "$1" --to /tmp/r -q
	[ $rc != 0 ] && [[ $out == *key* ]] && [ ! -e /tmp/r ] || return 1
	run snaprestore --from $MEDIA --volume vol --gen "$1" --to /tmp/r -q --key /tmp/etc/other.key
	[ $rc != 0 ] && [ ! -e /tmp/r ] || return 1
	works snaprestore --from $MEDIA --volume vol --gen "$1" --to /tmp/r -q --key /tmp/etc/backup.key && is_gen "$1" /tmp/r
}

sealed_order()	# by a manager, who has no key
{
	works snapbackup keygen /tmp/etc/backup.key && works snapbackup keygen /tmp/etc/other.key && conf_sealed && cut_now || return 1
	mw snapbackup --host $AGENT vol --gen "$n" --dest sealed --json -q && unsealed "$n"
}

sealed_schedule()	# an increment on it
{
	local n
	scatter 50 20 && conf_sealed || return 1
	printf '[volume vol]\ncut = 1s\nship = sealed\nlabel = sealed\n' >> /tmp/etc/agent.conf
	pass 0 && says "is on sealed" || return 1
	n=$(labelled sealed live)
	dev=$(snapctl activate "vol@$n") && sum "$dev" > "/tmp/sum.$n" && works snapctl deactivate "$dev" && unsealed "$n" && conf_sealed
}

sealed_restore()	# by a manager: with the key that agent.conf names, or not
{
	cut_now && mw snapbackup --host $AGENT vol --gen "$n" --dest sealed -q || return 1
	mr --from sealed --gen "$n" --to "$DISK3" --json -q && [[ $out == *'"encrypted":true'* ]] && is_gen "$n" "$DISK3" || return 1
	rm -f $INTO/*
	mr --from media --gen "$n" --to $INTO/s -q
	[ "$rc" != 0 ] && [[ $out == *key* ]] && [ ! -e $INTO/s ] || return 1
	mr --from sealed --key none --gen "$n" --to $INTO/s -q
	[ "$rc" != 0 ] && [[ $out == *key* ]] && [ ! -e $INTO/s ] || return 1
	mr --from sealed --gen 1 --to $INTO/s -q
	[ "$rc" != 0 ] && [ ! -e $INTO/s ] || return 1		# 1 is not encrypted: a key takes nothing else
	mr --from sealed --key none --gen 1 --to $INTO/s -q && is_gen 1 $INTO/s || return 1
	mr --from media --key sealed --gen "$n" --to $INTO/s --force -q && is_gen "$n" $INTO/s
}

# More than there may be sessions. Planted: without .strangers in snapagentd's service the order is refused.
silent()
{
	on client timeout 30 python3 -c '
import socket, time
held = [socket.create_connection(("'$AGENT'", 7420)) for i in range(64)]
print("held", flush=True)
time.sleep(30)' > /tmp/silent &
	local pid=$!
	within 20 grep -q held /tmp/silent && mw snapctl --host $AGENT list && [[ $out == *live* ]]
	local rc=$?
	kill $pid
	return $rc
}

secrets()
{
	local k
	k=$(sed -n 2p /tmp/state/agent/server.key)
	[ -n "$k" ] && ! grep -qF "$k" /tmp/agent.log && grep -q "begin peer=10.9.2.2 client=manager roles=operator" /tmp/agent.log
}

machine media 10.9.1.1 10.9.1.2 && machine manager 10.9.2.1 10.9.2.2 && machine client 10.9.3.1 10.9.3.2 &&
	ip -n client route add default via 10.9.3.1 || exit 1
dmsetup create odd --table "0 $SECTORS linear $DISK1 0" && head -c 25165824 /dev/urandom > /dev/mapper/odd || exit 1
stalling_media
snapctl attach vol /dev/mapper/odd "$DISK2" --format > /dev/null && serve_blocks || exit 1
conf
ok "keys of agent and media server, made once" init
ok "a manager that is not known; enrolled" unknown
ok "create, list, status: as on the storage host" listed
ok "pin, unpin, delete; what is refused" changed
ok "a backup, with its receipt; the data passes the manager by" backup
ok "only to destinations of agent.conf" not_anywhere
ok "roles: what each must not do" roles
ok "the manager is killed: the job goes on, and is picked up" manager_leaves
ok "cancelled, and picked up" cancelled_and_picked_up
ok "the media server stops: failed, and picked up" server_leaves
ok "the agent is killed, stops; the job's process is killed" agent_leaves
ok "no more jobs at once than allowed" limit
ok "restore: roles" restore_roles
ok "restore: targets, sources, keys that are refused" restore_refused
ok "restore: onto a device, with its receipt; the data passes the manager by" restored
ok "restore: files, parts" restored_file
ok "restore: the manager is killed, and it goes on" restore_goes_on
ok "restore: cancelled, and picked up" restore_cancelled
ok "restore: interrupted, and picked up" restore_interrupted
ok "agent.conf with an error: its line" refused_config
ok "schedule: a dry run does nothing" dry
ok "schedule: cut, sent; a destination that fails" cut_and_sent
ok "schedule: given up, but for what is a base or of others" given_up
ok "encrypted: a manager's backup" sealed_order
ok "encrypted: a scheduled backup" sealed_schedule
ok "encrypted: a manager's restore" sealed_restore
ok "64 who connect and say nothing keep nobody out" silent
ok "the agent's log" secrets
ok "agent and media server stop" eval 'stop "$agent" && stop "$server"'
ok "nothing is left active or pinned" idle
kill %?python3 2> /dev/null || kill "$(jobs -p)" 2> /dev/null
ok "detach" works snapctl detach vol
finish
