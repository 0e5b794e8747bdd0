#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 240
# Generations from one media server to a second one: all, what is missing, cut and taken up, parents that are gone.
. "$(dirname "$0")/media-lib.sh"
in_namespace --net "$@"
HOST=127.0.0.1
PORT=0
begin 5

back() {	# GEN [BASE]
	snapbackup --image "$W/g$1" --uuid "$U" --volume-name disk --gen "$1" --dest "$W/a" -q ${2:+--base "$2" --base-image "$W/g$2"} >/dev/null
}

images() {	# no multiple of a block; zeros
	{ head -c 5M /dev/urandom; head -c 3M /dev/zero; head -c 2000001 /dev/urandom; } >"$W/g1"
	for g in 2 3 4 5 6; do
		cp "$W/g$((g - 1))" "$W/g$g"
		head -c 300000 /dev/urandom | dd of="$W/g$g" bs=4096 seek=$((g * 100)) conv=notrunc status=none
		head -c 100K /dev/zero | dd of="$W/g$g" bs=4096 seek=$((g * 30)) conv=notrunc status=none
	done
}

same() {	# REPO GEN...
	local g

	for g in "${@:2}"; do
		rm -f "$W/r"
		snaprestore --from "$1" --volume disk --gen "$g" --to "$W/r" -q && cmp "$W/g$g" "$W/r" || return 1
	done
	snapmedia verify "$1"
}

manifests() {
	snapmedia list "$1" -o generation,manifest --noheadings
}

over_tls() {
	back 1 && back 2 1 && back 3 2 || return 1
	PIN=$(snapmediad init "$W/b") && start "$W/b" --listen $HOST:0 && enroll "$W/b" copier backup || return 1
	as copier snapmedia replicate "$W/a" --to $HOST:$PORT --dry-run && [ -z "$(snapmedia list "$W/b" --noheadings)" ] || return 1
	as copier snapmedia replicate "$W/a" --to $HOST:$PORT >"$W/said" || return 1
	cat "$W/said"
	grep -q "^3 generations sent, 0 were there" "$W/said" && [ "$(manifests "$W/a")" = "$(manifests "$W/b")" ] && same "$W/b" 1 2 3
}

only_what_is_missing() {
	back 4 3 || return 1
	as copier snapmedia replicate "$W/a" --to $HOST:$PORT >"$W/said" || return 1
	cat "$W/said"
	grep -q "^1 generations sent, 3 were there" "$W/said" && grep -q "^disk@4: as an increment, 30[0-9]* bytes" "$W/said" || return 1
	as copier snapmedia replicate "$W/a" --to $HOST:$PORT | grep -q "^0 generations sent, 4 were there" || return 1
	[ "$(manifests "$W/a")" = "$(manifests "$W/b")" ] && same "$W/b" 4
	stop
}

# Parents pruned here before they were sent: a whole one, and increments on that again.
parents_gone() {
	back 5 4 && back 6 5 && snapmedia init "$W/c" || return 1
	snapmedia prune "$W/a" --keep-last 2 --apply >/dev/null || return 1
	snapmedia replicate "$W/a" --to "$W/c" >"$W/said" || return 1
	cat "$W/said"
	grep -q "^disk@5: as a whole" "$W/said" && grep -q "^disk@6: as an increment" "$W/said" && same "$W/c" 5 6 || return 1
	# and to the one that has parent 4, which is gone here
	start "$W/b" --listen $HOST:0 && as copier snapbackup enroll $HOST:$PORT --pin "$PIN" >/dev/null || return 1
	as copier snapmedia replicate "$W/a" --to $HOST:$PORT >"$W/said"
	stop
	cat "$W/said"
	grep -q "^disk@5: as an increment" "$W/said" && grep -q "^2 generations sent" "$W/said" && same "$W/b" 5 6 &&
		[ "$(manifests "$W/a")" = "$(manifests "$W/b" | tail -2)" ]
}

# The wire is cut after a while: the second try sends the rest, and what is there is the same generation.
cut() {
	local sent

	head -c 60M /dev/urandom >"$W/g7"
	U=6d1b3c52-0f7e-4d55-9a0c-51b3f8a2c077 back 7 && snapmedia init "$W/d" || return 1
	printf '#!/bin/bash\nshift 2\nif [ -e %s ]; then exec "$@"; fi\ntouch %s\ndd bs=65536 count=500 status=none | "$@"\n' "$W/once" "$W/once" >"$W/ssh"
	chmod +x "$W/ssh"
	export SNAPDIFF_SSH=$W/ssh
	! snapmedia replicate "$W/a" --volume 6d1b3c52-0f7e-4d55-9a0c-51b3f8a2c077 --to "ssh://x$W/d" || return 1
	[ -z "$(snapmedia list "$W/d" --noheadings)" ] || return 1
	snapmedia replicate "$W/a" --volume 6d1b3c52-0f7e-4d55-9a0c-51b3f8a2c077 --to "ssh://x$W/d" >"$W/said" || return 1
	cat "$W/said"
	sent=$(sed -n 's/.*full, \([0-9]*\) bytes.*/\1/p' "$W/said")
	[ "$sent" -lt 50000000 ] && [ "$sent" -gt 1000000 ] && same "$W/d" 7
}

refused_ones() {	# damage here does not get there, and does not keep the rest from getting there
	local pack

	snapmedia init "$W/e" && cp "$W/g7" "$W/g8" && printf 'Y' | dd of="$W/g8" bs=1 seek=50000000 conv=notrunc status=none || return 1
	U=6d1b3c52-0f7e-4d55-9a0c-51b3f8a2c077 back 8 7 || return 1
	pack=$(find "$W/a/objects" -name '*.pack' -size +20M | head -1)
	printf 'X' | dd of="$pack" bs=1 seek=500000 conv=notrunc status=none
	! snapmedia replicate "$W/a" --volume 6d1b3c52-0f7e-4d55-9a0c-51b3f8a2c077 --to "$W/e" && [ -z "$(snapmedia list "$W/e" --noheadings)" ] &&
		refused 1 "to is needed" snapmedia replicate "$W/a" || return 1
	refused 6 "2 generations are damaged here" snapmedia replicate "$W/a" --to "$W/e" >"$W/said" || return 1
	cat "$W/said"
	grep -q "disk@7: not sent: .*damaged" "$W/said" && grep -q "disk@8: not sent: .*damaged" "$W/said" && grep -q "^2 generations sent" "$W/said" &&
		same "$W/e" 5 6 || return 1
	# over the wire
	PIN=$(snapmediad init "$W/f") && start "$W/f" --listen $HOST:0 && enroll "$W/f" copier2 backup || return 1
	refused 6 "2 generations are damaged here" as copier2 snapmedia replicate "$W/a" --to $HOST:$PORT >"$W/said" || { stop; return 1; }
	stop
	cat "$W/said"
	grep -q "^2 generations sent" "$W/said" && same "$W/f" 5 6
}

ip link set lo up
images
snapmedia init "$W/a"
ok "over TLS: the same generations, by the same hashes" over_tls
ok "only what is missing" only_what_is_missing
ok "parents that are gone" parents_gone
ok "cut and taken up" cut
ok "damage is not passed on, the rest is" refused_ones
