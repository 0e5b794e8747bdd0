#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1
# disks: 32M 96M
# timeout: 600
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
export SNAPDIFF_STATE_DIR=/tmp/state SNAPDIFF_CONFIG_DIR=/tmp/etc
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
ok "agent.conf with an error: its line" refused_config
ok "schedule: a dry run does nothing" dry
ok "schedule: cut, sent; a destination that fails" cut_and_sent
ok "schedule: given up, but for what is a base or of others" given_up
ok "64 who connect and say nothing keep nobody out" silent
ok "the agent's log" secrets
ok "agent and media server stop" eval 'stop "$agent" && stop "$server"'
ok "nothing is left active or pinned" idle
kill %?python3 2> /dev/null || kill "$(jobs -p)" 2> /dev/null
ok "detach" works snapctl detach vol
finish
