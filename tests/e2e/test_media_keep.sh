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
begin 11

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

# Damage in what says that a generation is there costs that generation: not the others, nor another volume, nor the next backup.
a_damaged_manifest() {
	local r=$W/dam m v h="--host $HOST:$PORT"

	PIN=$(snapmediad init "$r") && start "$r" --listen $HOST:$PORT && enroll "$r" nas2 backup,restore && enroll "$r" boss operator || return 1
	to() {	# GEN [BASE]
		as nas2 snapbackup --image "$W/g$1" --uuid "$U" --volume-name disk --gen "$1" --dest $HOST:$PORT -q ${2:+--base "$2" --base-image "$W/g$2"}
	}
	to 1 && to 2 1 && to 3 2 || return 1
	snapbackup --image "$W/g5" --uuid 00000000-0000-4000-8000-000000000001 --volume-name other --gen 1 --dest "$r" -q || return 1
	m=$(find "$r/objects" -name 0000000002.manifest) && v=${m%/manifests/*} || return 1
	printf 'XYZ' | dd of="$m" bs=1 seek=100 conv=notrunc status=none
	for cache in with without; do
		[ $cache = with ] || rm -f "$r/cache/"*
		refused 6 "0002.manifest: damaged" snapmedia list "$r" -o volume,generation --noheadings >"$W/said" || return 1
		[ "$(grep -v snapmedia "$W/said" | sort | tr -s ' \n' ' ')" = "disk 1 disk 3 other 1 " ] || { cat "$W/said"; return 1; }
		refused 6 "damaged" as boss snapmedia list $h >/dev/null || return 1
		as nas2 snaprestore --from $HOST:$PORT --list 2>"$W/err" | grep -c disk >"$W/said"
		[ "$(cat "$W/said")" = 2 ] && grep -q "1 more generations are there" "$W/err" || { cat "$W/err"; return 1; }
		for g in 1 3; do
			same "$r" $g && rm -f "$W/r" && as nas2 snaprestore --from $HOST:$PORT --volume disk --gen $g --to "$W/r" -q && cmp "$W/g$g" "$W/r" || return 1
		done
		refused 6 damaged snaprestore --from "$r" --volume disk --gen 2 --to "$W/no" -q && [ ! -e "$W/no" ] || return 1
	done
	to 4 3 && same "$r" 4 || return 1		# built on a sound one
	refused 5 "damaged manifest" to 2 1 || return 1	# its number is taken
	refused 6 "0002.manifest: damaged" snapmedia verify "$r" || return 1
	snapmedia verify "$r" 2>/dev/null | grep -q "4 generations" || return 1	# the others were looked at
	snapmedia prune "$r" --keep-last 2 --no-gc --apply || return 1
	refused 6 "prune --damaged" snapmedia gc "$r" || return 1
	same "$r" 3 && same "$r" 4 || return 1
	refused 1 "goes without --keep-last" snapmedia prune "$r" --damaged --keep-last 1 || return 1
	as boss snapmedia prune $h --damaged 2>&1 | grep "disk *2 .*remove.*damaged" && [ -e "$m" ] || return 1
	as boss snapmedia prune $h --damaged --apply && [ ! -e "$m" ] && snapmedia gc "$r" && snapmedia verify "$r" || return 1
	[ "$(gens "$r" | tr ' ' '\n' | sort | tr '\n' ' ')" = "1 3 4 " ] && same "$r" 3 && same "$r" 4 || return 1
	echo '{"client' >"$v/volume.json"	# nobody else's business; the manifests say whose it is, too
	same "$r" 4 && as nas2 snaprestore --from $HOST:$PORT --list | grep -c disk | grep -qx 2 && to 6 4 && same "$r" 6 || return 1
	stop
}

# What a verification found damaged is no base: on a sound one, found by comparing here, the next backup is whole again.
no_base_that_is_damaged() {
	local r=$W/bad p damaged="-o generation,damaged --noheadings"

	snapmedia init "$r" && back "$r" 1 && back "$r" 2 1 || return 1
	p=$(find "$r/objects" -name '*.pack' -size -3M) && back "$r" 3 2 && snapmedia verify "$r" || return 1
	[ -z "$(snapmedia list "$r" -o damaged --noheadings | tr -d ' \n-')" ] || return 1
	printf 'XYZ' | dd of="$p" bs=1 seek=500000 conv=notrunc status=none
	! snapmedia verify "$r" || return 1
	[ "$(snapmedia list "$r" $damaged | tr -s ' \n' ' ')" = "1 - 2 yes 3 yes " ] || { snapmedia list "$r" $damaged; return 1; }
	refused 6 "generation 3 on .* is damaged" back "$r" 4 3 || return 1
	snapbackup --image "$W/g4" --uuid "$U" --volume-name disk --gen 4 --dest "$r" --compare 2>&1 | tee "$W/said"
	grep -q "increment on 1, found by comparing" "$W/said" && same "$r" 4 || return 1
	snapmedia verify --sample 0.001% "$r" >/dev/null		# has not seen it: says nothing about it
	! snapmedia verify "$r" || return 1
	[ "$(snapmedia list "$r" $damaged | tr -s ' \n' ' ')" = "1 - 2 yes 3 yes 4 - " ] || return 1
	back "$r" 5 4 && snapmedia prune "$r" --keep-last 2 --apply && snapmedia verify "$r" || return 1
	[ "$(snapmedia list "$r" $damaged | tr -s ' \n' ' ')" = "4 - 5 - " ] && ! grep -q 3 "$r"/status/*.damaged && same "$r" 5
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
ok "a damaged manifest is one generation's loss" a_damaged_manifest
ok "nothing is put on a generation that was found damaged" no_base_that_is_damaged
ok "a disk full in mid-backup: what is published stays, the rest is taken up" full_in_mid_backup
ok "prune on a disk that is full of bytes" prune_when_full
ok "prune on a disk that is full of files" prune_without_inodes
ok "help of every verb" eval 'for v in list show du verify fsck prune gc lock unlock import init client replicate; do snapmedia $v --help || exit 1; done'
