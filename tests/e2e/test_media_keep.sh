#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 120
# Prune, locks and garbage collection from the command line, here and over the network, with the roles; and on a disk that
# is full: of bytes, of files.
. "$(dirname "$0")/media-lib.sh"
in_namespace "--mount --net" "$@"
HOST=192.0.2.1
PORT=17419
export TZ=UTC
begin 9

at_end() {
	umount "$W/small" 2>/dev/null
}

# Image N+1 has another megabyte at N megabytes than image N.
images() {
	head -c 8M /dev/urandom >"$W/g1"
	for g in 2 3 4 5 6; do
		cp "$W/g$((g - 1))" "$W/g$g"
		head -c 1M /dev/urandom | dd of="$W/g$g" bs=1M seek=$g conv=notrunc status=none
	done
}

back() {	# REPO GEN [BASE]
	snapbackup --image "$W/g$2" --uuid "$U" --volume-name disk --gen "$2" --dest "$1" -q ${3:+--base "$3" --base-image "$W/g$3"}
}

same() {	# REPO GEN
	rm -f "$W/r"
	snaprestore --from "$1" --volume disk --gen "$2" --to "$W/r" -q && cmp "$W/g$2" "$W/r"
}

gens() {
	snapmedia list "$1" -o generation --noheadings | tr -d ' ' | tr '\n' ' '
}

used() {
	snapmedia du "$1" -o total_bytes --bytes --noheadings | tr -d ' '
}

dry_run_then_for_good() {
	local before after
	back "$W/repo" 1 && back "$W/repo" 2 1 && back "$W/repo" 3 2 && back "$W/repo" 4 3 && back "$W/repo" 5 4 || return 1
	before=$(used "$W/repo")
	snapmedia prune "$W/repo" --keep-last 2 --json >"$W/plan" || return 1
	[ "$(gens "$W/repo")" = "1 2 3 4 5 " ] && [ "$(jq -c '[.generations[].action]' "$W/plan")" = '["keep","keep","remove","remove","remove"]' ] ||
		return 1
	refused 1 "keeps nothing" snapmedia prune "$W/repo" --apply || return 1
	snapmedia prune "$W/repo" --keep-last 2 --apply || return 1
	after=$(used "$W/repo")
	echo "before $before, after $after"
	# Of 12 MiB the 8 of the last generation and the one megabyte that 4 has and 5 has not stay
	[ "$(gens "$W/repo")" = "4 5 " ] && [ "$after" -lt $((before - 2500000)) ] && [ "$after" -lt 9800000 ] &&
		same "$W/repo" 4 && same "$W/repo" 5 && snapmedia verify "$W/repo" && back "$W/repo" 6 5 && same "$W/repo" 6
}

locks() {
	snapmedia lock "$W/repo" --gen 4 && [ "$(snapmedia list "$W/repo" -o generation,locked -n | awk '$2 == "yes" { print $1 }')" = 4 ] || return 1
	snapmedia lock "$W/repo" --gen 5 --until "2001-01-01 10:00" || return 1
	snapmedia prune "$W/repo" --keep-last 1 --apply && [ "$(gens "$W/repo")" = "4 6 " ] && same "$W/repo" 4 || return 1
	snapmedia unlock "$W/repo" --gen 4 && snapmedia prune "$W/repo" --keep-last 1 --apply && [ "$(gens "$W/repo")" = "6 " ] &&
		same "$W/repo" 6 && snapmedia fsck "$W/repo"
}

results_are_shown() {
	snapmedia verify "$W/repo" --sample 50% && [ "$(snapmedia du "$W/repo" -o verified_sample,verify_errors -n | xargs)" = "50000 0" ] &&
		refused 1 "sample" snapmedia verify "$W/repo" --sample 0
}

over_the_network() {
	PIN=$(snapmediad init "$W/net") && enroll "$W/net" nas backup && enroll "$W/net" boss operator && enroll "$W/net" eye auditor || return 1
	start "$W/net" --listen $HOST:$PORT || return 1
	local h="--host $HOST:$PORT"
	as nas back $HOST:$PORT 1 && as nas back $HOST:$PORT 2 1 && as nas back $HOST:$PORT 3 2 || return 1
	[ "$(as boss snapmedia list $h -o client,generation -n | xargs)" = "nas 1 nas 2 nas 3" ] || return 1
	[ "$(as eye snapmedia du $h -o generations -n | xargs)" = 3 ] || return 1
	as boss snapmedia lock $h --gen 1 && as boss snapmedia prune $h --keep-last 1 --apply || return 1
	[ "$(as eye snapmedia list $h -o generation,locked -n | xargs)" = "1 yes 3 -" ] || return 1
	as boss snapmedia verify $h && as boss snapmedia gc $h && as eye snapmedia fsck $h && as eye snapmedia show $h --gen 3
}

roles_over_the_network() {	# what each must not do, and that nothing was done
	local h="--host $HOST:$PORT" before
	before=$(find "$W/net/objects" "$W/net/keep" -type f | sort | xargs sha256sum)
	for verb in "prune --keep-last 1 --apply" gc verify "lock --gen 3" "unlock --gen 1"; do
		refused 2 "may not ${verb%% *}" as eye snapmedia $verb $h || return 1
	done
	for verb in list du fsck "show --gen 3" "prune --keep-last 1 --apply" gc verify "lock --gen 3" "unlock --gen 1"; do
		refused 2 "does not have the role" as nas snapmedia $verb $h || return 1
	done
	[ "$(find "$W/net/objects" "$W/net/keep" -type f | sort | xargs sha256sum)" = "$before" ] || return 1
	stop
}

small_disk() {	# OPTIONS
	umount "$W/small" 2>/dev/null
	mkdir -p "$W/small" && mount -t tmpfs -o "$1" none "$W/small" && snapmedia init "$W/small/repo"
}

full_in_mid_backup() {
	small_disk size=52m && back "$W/small/repo" 1 && back "$W/small/repo" 2 1 || return 1
	head -c 24M /dev/urandom >"$W/g7"
	# It passes the look at OPEN, which cannot know how well data shrinks, and does not fit.
	head -c 22M /dev/zero >"$W/small/other"
	refused 6 "o space left\|not enough space" back "$W/small/repo" 7 || return 1
	[ "$(gens "$W/small/repo")" = "1 2 " ] && same "$W/small/repo" 1 && same "$W/small/repo" 2 && snapmedia verify "$W/small/repo" || return 1
	[ "$(snapmedia du "$W/small/repo" -o staged_bytes -b -n | tr -d ' ')" -gt 1000000 ] || return 1
	rm "$W/small/other"
	snapmedia prune "$W/small/repo" --keep-last 1 --apply || return 1
	snapbackup --image "$W/g7" --uuid "$U" --volume-name disk --gen 7 --dest "$W/small/repo" -q --json >"$W/receipt" || return 1
	cat "$W/receipt"
	[ "$(jq .resumed_bytes "$W/receipt")" -gt 1000000 ] && same "$W/small/repo" 7 && same "$W/small/repo" 2 && snapmedia verify "$W/small/repo"
}

prune_when_full() {	# of bytes: nothing at all can be written
	small_disk size=40m && back "$W/small/repo" 1 && back "$W/small/repo" 2 1 || return 1
	cat /dev/zero >"$W/small/other" 2>/dev/null
	! cp "$W/g1" "$W/small/more" 2>/dev/null && rm -f "$W/small/more" && cat /dev/zero >>"$W/small/other" 2>/dev/null
	snapmedia lock "$W/small/repo" --gen 2 2>/dev/null && return 1		# it is full indeed
	snapmedia prune "$W/small/repo" --keep-last 1 --apply || return 1
	[ "$(gens "$W/small/repo")" = "2 " ] && same "$W/small/repo" 2 && snapmedia verify "$W/small/repo"
}

prune_without_inodes() {	# nothing can be made: the ballast is what gives way
	small_disk size=120m,nr_inodes=200 && back "$W/small/repo" 1 && back "$W/small/repo" 2 1 || return 1
	[ -e "$W/small/repo/ballast/0" ] || return 1
	rm -f "$W/small/repo/locks/"*
	local i=0
	while : 2>/dev/null >"$W/small/f$i"; do
		i=$((i + 1))
	done 2>/dev/null
	snapmedia prune "$W/small/repo" --keep-last 1 --apply || return 1
	[ ! -e "$W/small/repo/ballast/0" ] && [ "$(gens "$W/small/repo")" = "2 " ] && same "$W/small/repo" 2
}

ip link set lo up && ip addr add $HOST/32 dev lo || { echo "Bail out! no network namespace"; exit 1; }
images
snapmedia init "$W/repo"
ok "prune says first what it would do, then does it; space comes back" dry_run_then_for_good
ok "locks hold, run out, and go" locks
ok "results of a sample are kept and shown" results_are_shown
ok "the same over the network" over_the_network
ok "auditor and backup roles change nothing" roles_over_the_network
ok "a disk full in mid-backup: what is published stays, the rest is taken up" full_in_mid_backup
ok "prune on a disk that is full of bytes" prune_when_full
ok "prune on a disk that is full of files" prune_without_inodes
ok "help of every verb" eval 'for v in list show du verify fsck prune gc lock unlock import init client replicate; do snapmedia $v --help || exit 1; done'
