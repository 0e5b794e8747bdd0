#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1 debian-6.1 debian-6.12
# disks: 16M 32M
# timeout: 300
#
# What the agent's sessions do with the module, in kernels that confine them (Debian's; uml-6.1 has neither seccomp nor Landlock): a system
# call or file that they need and are not given fails here.

set -u
. "$(dirname "$0")/ktap.sh"

AGENT=127.0.0.1:7420
export SNAPDIFF_STATE_DIR=/tmp/state SNAPDIFF_CONFIG_DIR=/tmp/etc
agent=

there()		# COMMAND...: by the manager
{
	SNAPDIFF_CONFIG_DIR=/tmp/etc-manager works "$@"
}

same()		# VERB...: the same words by the agent as here
{
	local here
	here=$(snapctl "$@") && there snapctl --host $AGENT "$1" "${@:2}" && [ "$out" = "$here" ]
}

begin()
{
	local pin
	mkdir -p /tmp/etc /tmp/into && chmod 700 /tmp/into && ip link set lo up
	cat > /tmp/etc/agent.conf <<-CONF
		[destination here]
		address = /tmp/media
		[restore]
		directory = /tmp/into
	CONF
	works snapmedia init /tmp/media && pin=$(snapagentd init) || return 1
	snapagentd --listen $AGENT --foreground > /tmp/agent.port 2>> /tmp/agent.log &
	agent=$!
	for _ in $(seq 300); do
		grep -q ^listening /tmp/agent.port && break
		sleep 0.1
	done
	pin=$(SNAPDIFF_CONFIG_DIR=/tmp/etc-manager snapbackup enroll --agent $AGENT --pin "$pin" | sed -n 's/.*--pin \([^ ]*\) .*/\1/p')
	works snapagentd client add manager --pin "$pin" --role operator,restore
}

confined()	# where the kernel can, it is
{
	out=$(grep -o "start landlock=.*" /tmp/agent.log)
	[[ $(uname -r) != *-amd64* ]] || [[ $out == "start landlock="[2-9]" seccomp=1" ]]
}

generations()
{
	there snapctl --host $AGENT create vol --label one && [ "$out" = vol@1 ] || return 1
	there snapctl --host $AGENT create vol --no-freeze && [ "$out" = vol@2 ] || return 1
	same list vol && same list --json && same status vol -o volume,primary,diff,size,live,on_full || return 1
	there snapctl --host $AGENT pin vol@2 && there snapctl --host $AGENT unpin vol@2 && there snapctl --host $AGENT bookmark vol@1 &&
		there snapctl --host $AGENT delete vol@1 && same list vol && [[ $out != *vol@1* ]]
}

job()		# a backup, and back
{
	there snapbackup --host $AGENT vol --gen 2 --dest here --json -q && [[ $out == *'"generation":2'* ]] || return 1
	there snaprestore --host $AGENT --from here --volume vol --gen 2 --to /tmp/into/img -q && cmp /tmp/into/img "$DISK1" || return 1
	there snapbackup --host $AGENT --jobs && [[ $out == *done*restore* ]]
}

head -c 1M /dev/urandom > "$DISK1"
snapctl attach vol "$DISK1" "$DISK2" --format > /dev/null || exit 1
ok "agent and manager" begin
ok "sessions are confined where the kernel can" confined
ok "create, list, status, pin, bookmark, delete" generations
ok "a backup's job and a restore's" job
ok "the agent stops" eval 'kill "$agent" && wait "$agent"'
ok "detach" works snapctl detach vol
finish
