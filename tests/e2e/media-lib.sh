# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# What the tests of the media server share. Sourced by bash scripts; not a test itself.
#
#   begin CASES                       the plan; $W: an empty directory, removed at the end; $U: a volume's uuid
#   in_namespace OPTIONS "$@"         run the test again as root, in namespaces of its own (first thing): unshare's options
#   ok NAME COMMAND...                one case; the end of what it printed when it fails
#   start ARGUMENT...                 snapmediad; returns when it listens: $DAEMON, $PORT when that was 0
#   stop                              and wait for it: its status
#   as CLIENT COMMAND...              with that client's key
#   enroll REPO CLIENT ROLE [OPTION...]    $HOST:$PORT and the client know each other afterwards; $PIN: the server's
#   refused EXIT-STATUS TEXT COMMAND...    it ends so, and says so on stderr
#   field KEY                         of a receipt as JSON on stdin

set -u
cd "$(dirname "$0")/../.." || exit 1

in_namespace() {	# OPTIONS-OF-UNSHARE ARGUMENT...
	local how=$1

	shift
	[ -n "${IN_NAMESPACE:-}" ] && return
	# shellcheck disable=SC2086
	unshare $how true 2>/dev/null && exec env IN_NAMESPACE=1 unshare $how "$PWD/tests/e2e/${0##*/}" "$@"
	# shellcheck disable=SC2086
	exec env IN_NAMESPACE=1 unshare $how --map-root-user "$PWD/tests/e2e/${0##*/}" "$@"
}

PATH=$PWD/build/bin:$PATH
U=6d1b3c52-0f7e-4d55-9a0c-51b3f8a2c001
W=
DAEMON=
N=0

cleanup() {
	[ -n "$DAEMON" ] && kill "$DAEMON" 2>/dev/null
	at_end
	[ -n "$W" ] && rm -rf "$W"
}

at_end() {	# for a test to have its own
	:
}

begin() {	# NUMBER-OF-CASES
	W=$(mktemp -d "${TMPDIR:-/tmp}/snapmedia.XXXXXX") || exit 1
	trap cleanup EXIT
	export SNAPDIFF_STATE_DIR=$W/state SNAPDIFF_CONFIG_DIR=$W/etc
	echo "1..$1"
}

ok() {		# NAME COMMAND...
	local name=$1 rc

	shift
	N=$((N + 1))
	"$@" >"$W/out" 2>&1
	rc=$?
	if [ $rc = 0 ]; then
		echo "ok $N $name"
	else
		echo "not ok $N $name"
		sed 's/^/# /' "$W/out" | tail -20
	fi
}

start() {	# ARGUMENT...
	local got

	: >"$W/port"
	snapmediad "$@" --foreground >"$W/port" 2>>"$W/log" &
	DAEMON=$!
	for _ in $(seq 200); do
		got=$(sed -n 's/^listening.* port //p' "$W/port" | head -1)
		[ -n "$got" ] && { PORT=$got; return 0; }
		sleep 0.05
	done
	return 1
}

stop() {
	local rc

	kill "$DAEMON" && wait "$DAEMON"
	rc=$?
	DAEMON=
	return $rc
}

as() {		# CLIENT COMMAND...
	SNAPDIFF_CONFIG_DIR=$W/etc-$1 "${@:2}"
}

enroll() {	# REPO CLIENT ROLE [OPTION...]
	local pin

	pin=$(as "$2" snapbackup enroll "$HOST:$PORT" --pin "$PIN" --role "$3" | sed -n 's/.*--pin \([^ ]*\) .*/\1/p')
	[ -n "$pin" ] && snapmedia client add "$2" --pin "$pin" --role "$3" --repo "$1" "${@:4}"
}

refused() {	# EXIT-STATUS TEXT COMMAND...
	local want=$1 text=$2 rc

	shift 2
	"$@" 2>"$W/err"
	rc=$?
	cat "$W/err"
	[ $rc = "$want" ] && grep -q "$text" "$W/err"
}

field() {	# KEY
	sed -n "s/.*\"$1\":\"\{0,1\}\([^,\"}]*\).*/\1/p"
}
