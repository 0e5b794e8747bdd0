#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 200
# The agent where no module is needed: a manager's restore into a file, and what a session's process can not do, seen from inside of one.
# What takes volumes is in tests/selftests/snapdiff/test_agent.sh.
. "$(dirname "$0")/media-lib.sh"
in_namespace --net "$@"
HOST=127.0.0.1
PORT=0
AGENT=127.0.0.1:17420
APID=
begin 6

at_end() {
	[ -n "$APID" ] && kill "$APID" 2>/dev/null
}

agent() {	# ENVIRONMENT...: started, and listens
	[ -z "$APID" ] || { kill "$APID" && wait "$APID"; }
	env "$@" snapagentd --listen $AGENT --foreground >"$W/agent.port" 2>>"$W/agent.log" &
	APID=$!
	for _ in $(seq 200); do
		grep -q ^listening "$W/agent.port" && return 0
		sleep 0.05
	done
	return 1
}

conf() {
	mkdir -p "$W/etc" "$W/restores"
	cat >"$W/etc/agent.conf" <<-CONF
		[destination media]
		address = $HOST:$PORT
		[restore]
		directory = $W/restores
	CONF
}

set_up() {
	local pin
	ip link set lo up
	head -c 20M /dev/urandom >"$W/g1"
	PIN=$(snapmediad init "$W/repo") && start "$W/repo" --listen $HOST:0 || return 1
	pin=$(snapbackup enroll "$HOST:$PORT" --pin "$PIN" --role backup,restore | sed -n 's/.*--pin \([^ ]*\) .*/\1/p') &&
		snapmedia client add nas --pin "$pin" --role backup,restore --repo "$W/repo" &&
		snapbackup --image "$W/g1" --uuid "$U" --volume-name disk --gen 1 --dest "$HOST:$PORT" -q || return 1
	conf
	PIN=$(snapagentd init) && agent || return 1
	pin=$(as manager snapbackup enroll --agent $AGENT --pin "$PIN" --role operator,restore | sed -n 's/.*--pin \([^ ]*\) .*/\1/p') &&
		snapagentd client add manager --pin "$pin" --role operator,restore
}

restore() {	# NAME [OPTION...]
	as manager snaprestore --host $AGENT --from media --volume disk --gen 1 --to "$W/restores/$1" "${@:2}"
}

# In a user namespace that root of the outside has no place in, nobody's is the root directory.
unsafe_here() {
	[ "$(stat -c %u /)" != 0 ]
}

restored() {
	unsafe_here && return
	restore a --json -q >"$W/receipt" && cmp "$W/g1" "$W/restores/a" && [ "$(field verified <"$W/receipt")" = manifests ]
}

refused_here() {
	refused 2 "not a target" restore ../x && refused 2 "not a target" restore b.part && [ ! -e "$W/x" ] || return 1
	unsafe_here && return
	ln -s "$W/x" "$W/restores/l"
	refused 1 "not a file with this name alone" restore l && [ ! -e "$W/x" ] && rm "$W/restores/l" || return 1
	# The session was confined before: agent.conf as it is now counts for the next
	sed -i '/restores/d' "$W/etc/agent.conf"
	refused 2 "not a target" restore b || return 1
	conf
}

# In the place of sigpending(), which a session calls while it follows a job, and nobody else: an intruder, who says what he got.
probe() {
	cat >"$W/probe.c" <<-'C'
		#define _GNU_SOURCE
		#include <errno.h>
		#include <fcntl.h>
		#include <signal.h>
		#include <stdio.h>
		#include <stdlib.h>
		#include <string.h>
		#include <sys/socket.h>
		#include <unistd.h>

		static void say(const char *what, int got)
		{
			fprintf(stderr, "probe %s: %s\n", what, got < 0 ? strerror(errno) : "GOT IT");
		}

		int sigpending(sigset_t *s)
		{
			const char *what = getenv("PROBE");

			say("passwd", open("/etc/passwd", O_RDONLY));
			say("key", open(getenv("PROBE_KEY"), O_RDONLY));
			say("conf", open(getenv("PROBE_CONF"), O_RDONLY));
			say("target", open(getenv("PROBE_TARGET"), O_CREAT | O_WRONLY, 0600));
			say("route", socket(AF_NETLINK, SOCK_RAW, 0));
			say("generic", socket(AF_NETLINK, SOCK_RAW, 16));
			if (!strcmp(what, "exec"))
				execl("/bin/sh", "sh", "-c", "echo probe exec: GOT IT >&2", NULL);
			if (!strcmp(what, "socket"))
				say("socket", socket(AF_INET, SOCK_STREAM, 0));
			if (!strcmp(what, "fork"))
				say("fork", fork());
			if (!strcmp(what, "kill"))
				say("kill", kill(1, 0));
			sigemptyset(s);
			return 0;
		}
	C
	${CC:-cc} -shared -fPIC -o "$W/probe.so" "$W/probe.c"
}

no_files() {
	probe || return 1
	unsafe_here && return
	local what
	agent "LD_PRELOAD=$W/probe.so" PROBE=none PROBE_KEY="$W/state/agent/server.key" PROBE_CONF="$W/etc/agent.conf" \
		PROBE_TARGET="$W/restores/stolen" || return 1
	restore c -q || return 1
	cat "$W/agent.log"
	grep -q "landlock=0" "$W/agent.log" && return
	for what in passwd key conf target; do
		grep -q "probe $what: Permission denied" "$W/agent.log" || return 1
	done
	[ ! -e "$W/restores/stolen" ] && grep -q "probe route: Function not implemented" "$W/agent.log" && grep -q "probe generic: GOT IT" "$W/agent.log"
}

# Each ends the session, and not the job.
no_programs() {
	local what n=0
	unsafe_here && return
	grep -q "seccomp=0" "$W/agent.log" && return
	for what in exec socket fork kill; do
		agent "LD_PRELOAD=$W/probe.so" PROBE=$what PROBE_KEY=/x PROBE_CONF=/x PROBE_TARGET=/x || return 1
		n=$((n + 1))
		! restore "d$n" -q || return 1
		for _ in $(seq 200); do
			[ -e "$W/restores/d$n" ] && break
			sleep 0.05
		done
		cmp "$W/g1" "$W/restores/d$n" || return 1
	done
	cat "$W/agent.log"
	! grep -E "probe (exec|socket|fork|kill)" "$W/agent.log"
}

# No privilege but the one that the module asks for, in a session; its helper has its own
kernel_says() {
	local p caps
	agent || return 1
	exec 9<>/dev/tcp/127.0.0.1/17420
	printf x >&9
	for _ in $(seq 100); do
		p=$(pgrep -P "$APID" | head -1)
		[ -n "$p" ] && grep -q "^NoNewPrivs:.1" "/proc/$p/status" && grep -q "^Seccomp:.2" "/proc/$p/status" && break
		sleep 0.05
	done
	grep -E "^(Cap|NoNew|Seccomp)" "/proc/$p/status"
	caps=$(sed -n 's/^CapPrm:\t//p' "/proc/$p/status")
	exec 9>&-
	[ "$caps" = 0000000000200000 ]
}

ok "keys, roles, a generation" set_up
ok "restored into a file, by a manager's order" restored
ok "what is refused" refused_here
ok "from inside of a session: no files, no keys, no other netlink" no_files
ok "no programs, sockets, processes, signals: that ends it" no_programs
ok "one capability, a filter: as the kernel sees it" kernel_says
