# SPDX-License-Identifier: GPL-2.0-or-later
#
# What the guest tests share. Sourced by bash scripts; not a test itself.
# shellcheck shell=bash
#
#   ok NAME CONDITION...          one case; $out is shown when the condition fails
#   run ARG...                    snapctl ARG...; $out is what it said on both streams, $rc its status
#   works ARG...                  the same, and it must succeed
#   refused CODE TEXT ARG...      it must end with CODE and a line "snapctl: ...TEXT..."
#   json EXPRESSION ARG...        snapctl ARG... --json gives d, of which the Python EXPRESSION is true
#   stat_of VOLUME COLUMN         one number of snapctl status
#   null_disk NAME MIB [KEY=VALUE]...   a memory-backed null_blk disk /dev/NAME with sectors of 512 bytes
#   null_power NAME...            power cut: what the disks' volatile caches were not told to flush is gone
#   need COMMAND...               set-up without which the rest makes no sense
#   finish                        the plan; the status of the test

set -u
n=0 failed=0 out= rc=0
null_dir=/sys/kernel/config/nullb

ok()
{
	local name=$1

	shift
	n=$((n + 1))
	out=
	if "$@"; then
		echo "ok $n $name"
	else
		failed=$((failed + 1))
		echo "not ok $n $name"
		echo "# command: $*"
		[ -z "$out" ] || printf '%s\n' "$out" | tail -n 20 | sed 's/^/#   /'
	fi
}

need()
{
	"$@" && return
	echo "not ok $((n + 1)) set-up: $*"
	printf '%s\n' "$out" | sed 's/^/#   /'
	echo "1..$((n + 1))"
	exit 1
}

skip()
{
	n=$((n + 1))
	echo "ok $n $1 # SKIP $2"
}

finish()
{
	echo "1..$n"
	[ "$failed" -eq 0 ]
	exit
}

run()
{
	out=$(snapctl "$@" 2>&1)
	rc=$?
}

works()
{
	run "$@"
	[ "$rc" -eq 0 ] || { out="status $rc: $out"; return 1; }
}

refused()
{
	local code=$1 text=$2

	shift 2
	run "$@"
	[ "$rc" -eq "$code" ] || { out="status $rc, not $code: $out"; return 1; }
	[[ $out == snapctl:* && $out == *"$text"* ]]
}

# quiet COMMAND...: $out has what it said; for tools that say why on stderr
quiet()
{
	out=$("$@" 2>&1)
}

fails()
{
	! quiet "$@"
}

json()
{
	local filter=$1

	shift
	out=$(snapctl "$@" --json 2>&1) || return 1
	printf '%s' "$out" | python3 -c "
import json, sys
d = json.load(sys.stdin)
sys.exit(0 if ($filter) else 1)"
}

stat_of()
{
	snapctl status "$1" -n -b -o "$2"
}

# equal A B: two numbers or words; $out has both when they differ
equal()
{
	out="$1 is not $2"
	[ "$1" = "$2" ]
}

sum()
{
	sha256sum <"$1" | cut -d' ' -f1
}

# reads_as DEVICE SUM
reads_as()
{
	out=$(dd if="$1" bs=1M iflag=direct 2>/tmp/dd.err | sha256sum | cut -d' ' -f1)
	[ "$out" = "$2" ] || { out="$out, not $2; $(cat /tmp/dd.err)"; return 1; }
}

# generation NAME@N SUM: its content, through a device that is there for this moment only
generation()
{
	local dev r

	works activate "$1" || return 1
	dev=$out
	reads_as "$dev" "$2"
	r=$?
	for _ in 1 2 3 4 5; do
		snapctl deactivate "$dev" 2>/dev/null && break
		sleep 0.2
	done
	return $r
}

eio()
{
	! out=$(dd if="$1" of=/dev/null bs=64k iflag=direct 2>&1) && [[ $out == *"Input/output error"* ]]
}

wait_for()
{
	local i

	for ((i = 0; i < 100; i++)); do
		"$@" && return 0
		sleep 0.1
	done
	return 1
}

null_disk()
{
	local d=$null_dir/$1 kv

	[ -d /sys/module/null_blk ] || modprobe null_blk nr_devices=0 || return 1
	# On the stock kernels configfs is a module: it was not there when the guest began.
	[ -d $null_dir ] || mount -n -t configfs configfs /sys/kernel/config || return 1
	mkdir "$d" || return 1
	echo "$2" >"$d/size"
	echo 512 >"$d/blocksize"
	echo 1 >"$d/memory_backed"
	echo 1 >"$d/discard"
	echo 0 >"$d/queue_mode"
	for kv in "${@:3}"; do
		echo "${kv#*=}" >"$d/${kv%%=*}" || return 1
	done
	echo 1 >"$d/power"
	wait_for test -b "/dev/$1"
}

null_power()
{
	local name

	for name in "$@"; do
		echo 0 >"$null_dir/$name/power" && echo 1 >"$null_dir/$name/power" || return 1
	done
}

null_gone()		# NAME...: remove the disks
{
	local name

	for name in "$@"; do
		echo 0 >"$null_dir/$name/power"
		rmdir "$null_dir/$name"
	done
}
