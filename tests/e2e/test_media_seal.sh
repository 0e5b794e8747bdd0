#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 200
# Encryption by the client: what the repository has is of no use without the key, what it changes is seen with it, and all that a server
# does without looking into the data goes on as before.
. "$(dirname "$0")/media-lib.sh"
begin 16

back() {	# REPO IMAGE GEN [OPTION...]
	snapbackup --image "$2" --uuid "$U" --volume-name disk --gen "$3" --dest "$1" -q "${@:4}"
}

back_to_file() {	# FILE IMAGE GEN [OPTION...]
	back "$@" --force
}

restored() {	# GEN IMAGE [OPTION...]: from the repository, with the key
	rm -f "$W/r"
	snaprestore --from "$W/repo" --gen "$1" --to "$W/r" -q --key "$W/key" "${@:3}" && cmp "$2" "$W/r"
}

# Words that are found again if they are stored as they are, in whatever is not compressed; zeros; a last block that is cut.
images() {
	python3 - "$W" <<-'PY'
		import os, random, sys
		w = sys.argv[1]
		r = random.Random(7)
		img = bytearray(b''.join(b'SECRETWORD%06d' % i + r.randbytes(4080) for i in range(700)))
		img[200 * 4096:300 * 4096] = bytes(100 * 4096)
		img += b'the last block'
		open(w + '/img', 'wb').write(img)
		for i in range(0, 700, 9):
		    img[i * 4096 + 100:i * 4096 + 110] = b'SECRETWORD'
		img[40 * 4096:50 * 4096] = bytes(10 * 4096)
		open(w + '/img2', 'wb').write(img)
		img[7 * 4096:8 * 4096] = r.randbytes(4096)
		open(w + '/img3', 'wb').write(img)
	PY
}

keys() {
	snapbackup keygen "$W/key" >"$W/id" && snapbackup keygen "$W/other" >"$W/other.id" || return 1
	ID=$(sed -n 's/^key \([0-9a-f]\{16\}\)$/\1/p' "$W/id")
	[ ${#ID} = 16 ] && [ "$(stat -c %a "$W/key")" = 600 ] && ! cmp -s "$W/id" "$W/other.id" || return 1
	! grep -q "$(sed 's/.* //' "$W/key")" "$W/id" || return 1
	cp "$W/key" "$W/before"
	refused 5 "never replaced" snapbackup keygen "$W/key" && cmp "$W/key" "$W/before" || return 1
	cp "$W/key" "$W/open" && chmod 644 "$W/open"
	refused 2 "others can read" back "$W/repo" "$W/img" 1 --encrypt "$W/open" || return 1
	head -c 60 "$W/key" >"$W/short" && chmod 600 "$W/short"
	refused 6 "not a key file" back "$W/repo" "$W/img" 1 --encrypt "$W/short" || return 1
	[ ! -e "$W/repo/objects/volumes" ] || [ -z "$(ls "$W/repo/objects/volumes")" ]
}

there_and_back() {
	snapmedia init "$W/repo" && back "$W/repo" "$W/img" 1 --encrypt "$W/key" --compress 0 || return 1
	back "$W/repo" "$W/img2" 2 --encrypt "$W/key" --compress 0 --base 1 --base-image "$W/img" --json >"$W/json" || return 1
	[ "$(field base <"$W/json")" = 1 ] && restored 1 "$W/img" && restored 2 "$W/img2" || return 1
	rm -f "$W/r"
	snaprestore --from "$W/repo" --gen 2 --to "$W/r" -q --key "$W/key" --range 122880:122880 &&
		cmp -n 122880 -i 122880 "$W/img2" "$W/r"
}

# Neither plaintext nor a digest of it, of blocks or of whole frames.
nothing_in_clear() {
	grep -rqa SECRETWORD "$W/repo" && return 1
	python3 - "$W" <<-'PY'
		import hashlib, os, sys
		w = sys.argv[1]
		img = open(w + '/img', 'rb').read()
		have = b''.join(open(os.path.join(d, f), 'rb').read() for d, _, fs in os.walk(w + '/repo') for f in fs)
		assert len(have) > len(img) * 8 // 10
		for step in 4096, 65536, 262144, len(img):
		    for at in range(0, len(img), step):
		        h = hashlib.sha256(img[at:at + step])
		        assert h.digest() not in have and h.hexdigest().encode() not in have, (step, at)
		# the words that are the same in every block are not the same when sealed
		blocks = [have[i:i + 32] for i in range(0, len(have) - 32, 4096)]
		assert len(set(b for b in blocks if any(b))) > 600
	PY
}

wrong_keys() {
	rm -f "$W/r"
	refused 2 "encrypted: its key, $ID, is needed" snaprestore --from "$W/repo" --gen 2 --to "$W/r" -q || return 1
	refused 2 "encrypted with key $ID, this one is" snaprestore --from "$W/repo" --gen 2 --to "$W/r" -q --key "$W/other" || return 1
	[ ! -e "$W/r" ] && [ ! -e "$W/r.part" ] || return 1
	# a key for what is not encrypted: somebody has exchanged it
	snapmedia init "$W/plain" && back "$W/plain" "$W/img" 1 || return 1
	refused 2 "is not encrypted, and a key was given" snaprestore --from "$W/plain" --gen 1 --to "$W/r" -q --key "$W/key" && [ ! -e "$W/r" ]
}

keys_do_not_mix() {
	local GU=0f0e0d0c-0b0a-4a09-8807-060504030201

	back "$W/repo" "$W/img3" 3 --encrypt "$W/other" --gen-uuid $GU --json 2>/dev/null >"$W/json" && grep -q '"base":null' "$W/json" || return 1
	refused 2 "not encrypted as this is to be" back "$W/repo" "$W/img3" 4 --encrypt "$W/other" --base 2 --base-image "$W/img2" || return 1
	refused 2 "not encrypted as this is to be" back "$W/repo" "$W/img3" 4 --base 2 --base-image "$W/img2" || return 1
	refused 5 "not encrypted with this key" back "$W/repo" "$W/img3" 3 --encrypt "$W/key" --gen-uuid $GU --base none || return 1
	back "$W/repo" "$W/img3" 3 --encrypt "$W/other" --gen-uuid $GU --base none --json | grep -q '"state":"published"' || return 1
	refused 1 "cannot look into" back "$W/repo" "$W/img3" 4 --encrypt "$W/key" --compare || return 1
	refused 1 "cannot look into" back "$W/repo" "$W/img3" 4 --encrypt "$W/key" --base 2 --base-image "$W/img2" --audit 5 || return 1
	refused 1 "not with --format" back "$W/x.raw" "$W/img3" 4 --encrypt "$W/key" --format raw
}

without_the_key() {	# verify, prune, gc, du, replicate; and verify with it
	snapmedia verify "$W/repo" >"$W/v" && snapmedia verify "$W/repo" --key "$W/key" --json >"$W/v2" || return 1
	grep -q " 0 opened" "$W/v" && [ "$(field opened <"$W/v2")" -gt 5 ] || return 1
	snapmedia init "$W/second" && snapmedia replicate "$W/repo" --to "$W/second" >/dev/null || return 1
	rm -f "$W/r"
	snaprestore --from "$W/second" --gen 2 --to "$W/r" -q --key "$W/key" && cmp "$W/img2" "$W/r" || return 1
	back "$W/repo" "$W/img3" 5 --encrypt "$W/key" --base 2 --base-image "$W/img2" || return 1
	snapmedia prune "$W/repo" --keep-last 1 --apply >/dev/null && snapmedia gc "$W/repo" >/dev/null && snapmedia verify "$W/repo" --key "$W/key" >/dev/null || return 1
	restored 5 "$W/img3" && [ "$(ls "$W"/repo/objects/volumes/*/manifests | wc -l)" = 1 ]
}

dry_run_is_exact() {
	local say did

	say=$(back "$W/second" "$W/img3" 6 --encrypt "$W/key" --base 2 --base-image "$W/img2" --dry-run --measure --json | field payload_bytes)
	did=$(back "$W/second" "$W/img3" 6 --encrypt "$W/key" --base 2 --base-image "$W/img2" --json | field payload_bytes)
	[ -n "$say" ] && [ "$say" = "$did" ]
}

streams() {
	back_to_file "$W/s1" "$W/img" 1 --encrypt "$W/key" --compress 0 && back_to_file "$W/s2" "$W/img2" 2 --encrypt "$W/key" --base 1 --base-image "$W/img" || return 1
	! grep -qa SECRETWORD "$W/s1" || return 1
	rm -f "$W/r"
	snaprestore --from "$W/s1" "$W/s2" --to "$W/r" -q --key "$W/key" && cmp "$W/img2" "$W/r" || return 1
	rm -f "$W/r"
	refused 2 "$ID" snaprestore --from "$W/s1" "$W/s2" --to "$W/r" -q || return 1
	refused 2 "$ID" snaprestore --from "$W/s1" "$W/s2" --to "$W/r" -q --key "$W/other" && [ ! -e "$W/r" ] || return 1
	refused 2 "not sent encrypted as this" back_to_file "$W/s3" "$W/img2" 2 --base 1 --base-image "$W/img" || return 1
	snapmedia init "$W/third" && snapmedia import "$W/third" "$W/s1" && snapmedia import "$W/third" "$W/s2" || return 1
	snaprestore --from "$W/third" --gen 2 --to "$W/r" -q --key "$W/key" && cmp "$W/img2" "$W/r"
}

exported() {
	refused 1 "$ID" snapmedia export "$W/second" @2 --run 'true' || return 1
	# shellcheck disable=SC2016
	snapmedia export "$W/second" @2 --key "$W/key" --run 'nbdcopy "$uri" '"$W/nbd" && cmp "$W/img2" "$W/nbd"
}

# What is encrypted cannot be put on another parent; it is left out, and the other volumes' generations go.
parent_gone() {
	chain "$W/from" --encrypt "$W/key" && back "$W/from" "$W/img3" 4 --encrypt "$W/key" --base none || return 1
	U=0a0a0a0a-3c52-4d55-9a0c-51b3f8a2c077 back "$W/from" "$W/img" 1 && U=ffffffff-3c52-4d55-9a0c-51b3f8a2c077 back "$W/from" "$W/img2" 1 || return 1
	snapmedia prune "$W/from" --volume "$U" --keep-last 3 --apply >/dev/null && snapmedia init "$W/to" || return 1
	refused 2 "2 generations are encrypted, their parents are not there" snapmedia replicate "$W/from" --to "$W/to" >"$W/said" || return 1
	cat "$W/said"
	grep -q "^3 generations sent" "$W/said" && grep -q "disk@2: not sent: is encrypted" "$W/said" && grep -q "disk@3: not sent: is encrypted" "$W/said" || return 1
	rm -f "$W/r"
	snaprestore --from "$W/to" --volume "$U" --gen 4 --to "$W/r" -q --key "$W/key" && cmp "$W/img3" "$W/r" && snapmedia verify "$W/to"
}

# ---- over the network, and a server that mixes ----

HOST=127.0.0.1

# The repository says of generation TO that its blocks lie where those of FROM lie: each frame is genuine, each digest right.
mix() {	# REPO TO FROM
	python3 - "$@" <<-'PY'
		import glob, hashlib, json, os, sys
		repo, to, of = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
		path = lambda n: glob.glob('%s/objects/volumes/*/manifests/%010d.manifest' % (repo, n))[0]
		a, b = (open(path(n), 'rb').read().split(b'\n') for n in (to, of))
		record = json.loads(a[1])
		record['map'] = json.loads(b[1])['map']
		a[1] = json.dumps(record, sort_keys=True, separators=(',', ':')).encode()
		text = a[0] + b'\n' + a[1] + b'\n'
		os.chmod(path(to), 0o600)
		open(path(to), 'wb').write(text + hashlib.sha256(text).hexdigest().encode() + b'\n')
	PY
}

from_server() {	# GEN IMAGE [OPTION...]
	rm -f "$W/r"
	snaprestore --from "$HOST:$PORT" --volume disk --gen "$1" --to "$W/r" -q "${@:3}" && cmp "$2" "$W/r"
}

from_here() {	# REPO GEN [OPTION...]
	rm -f "$W/r"
	snaprestore --from "$1" --gen "$2" --to "$W/r" -q "${@:3}"
}

chain() {	# REPO [OPTION...]: 1, 2 on it, 3 on that
	snapmedia init "$1" && back "$1" "$W/img" 1 "${@:2}" && back "$1" "$W/img2" 2 --base 1 --base-image "$W/img" "${@:2}" &&
		back "$1" "$W/img3" 3 --base 2 --base-image "$W/img2" "${@:2}"
}

served_sealed() {
	chain "$W/net" --encrypt "$W/key" && start "$W/net" --listen $HOST:0 || return 1
	for i in 1 2 3; do
		from_server $i "$W/img${i#1}" --key "$W/key" || return 1
	done
	snaprestore --from "$HOST:$PORT" --gen 3 --to - -q --key "$W/key" | cmp - "$W/img3" || return 1
	refused 2 "$ID" from_server 3 "$W/img3" && refused 2 "$ID" from_server 3 "$W/img3" --key "$W/other" && [ ! -e "$W/r" ] || return 1
	back "$HOST:$PORT" "$W/img3" 9 --encrypt "$W/key" && from_server 9 "$W/img3" --key "$W/key"
	rc=$?
	stop
	return $rc
}

mixtures() {	# [OPTION...]
	local repo=$W/mix$#

	chain "$repo" ${1:+--encrypt "$W/key"} && start "$repo" --listen $HOST:0 || return 1
	from_server 3 "$W/img3" "$@" && from_server 2 "$W/img2" "$@" || return 1
	mix "$repo" 3 2 && snapmedia reindex "$repo" >/dev/null
	# without the comparison it passes, and is not generation 3
	snaprestore --from "$HOST:$PORT" --gen 3 --to "$W/old" -q --unproven --force "$@" && cmp "$W/old" "$W/img2" || return 1
	refused 6 "is not of this generation" from_server 3 "$W/img3" "$@" && [ ! -e "$W/r" ] && [ ! -e "$W/r.part" ] || return 1
	mix "$repo" 2 1
	refused 6 "is not of this generation" from_server 2 "$W/img2" "$@" && from_server 1 "$W/img" "$@"
	rc=$?
	stop
	return $rc
}

mixed_here() {
	refused 6 "is not of this generation" from_here "$W/mix2" 3 --key "$W/key" || return 1
	snapmedia list "$W/mix0" -o generation,manifest --noheadings >"$W/list" || return 1
	refused 6 "is not of this generation" from_here "$W/mix0" 3 --manifest "$(awk '$1 == 3 { print $2 }' "$W/list")" || return 1
	refused 6 "another manifest" from_here "$W/mix0" 1 --manifest "$(printf %064d 0)" && from_here "$W/mix0" 1 --manifest "$(awk '$1 == 1 { print $2 }' "$W/list")"
}

# The ancestors are gone, what proves them is not; it goes with the last that descends from them.
pruned() {
	local proofs

	chain "$W/kept" && snapmedia prune "$W/kept" --keep-last 1 --apply >/dev/null && snapmedia verify "$W/kept" >/dev/null || return 1
	proofs=$(echo "$W"/kept/objects/volumes/*/proofs)
	[ "$(ls "$proofs" | wc -l)" = 3 ] && start "$W/kept" --listen $HOST:0 && from_server 3 "$W/img3" || return 1
	back "$HOST:$PORT" "$W/img" 4 --base none && from_server 4 "$W/img" || return 1
	snapmedia prune "$W/kept" --keep-last 1 --apply >/dev/null
	[ "$(ls "$proofs" | wc -l)" = 1 ] && from_server 4 "$W/img" || return 1
	chmod 600 "$proofs"/*
	dd if=/dev/zero of="$(echo "$proofs"/*)" bs=1 seek=900 count=8 conv=notrunc status=none
	refused 6 "damaged proof" snapmedia verify "$W/kept" && refused 6 "damaged proof" from_server 4 "$W/img" && from_server 4 "$W/img" --unproven
	rc=$?
	stop
	return $rc
}

images
ok "keygen: exclusive, 0600, nothing of the key is printed, no bad file is taken" keys
ok "full and increment, encrypted, come back; ranges, too" there_and_back
ok "neither plaintext nor digests of it are in the repository" nothing_in_clear
ok "without key, with another, or with one for plain data: refused by the key's id, nothing written" wrong_keys
ok "keys do not mix; what would need the plaintext on the server is refused" keys_do_not_mix
ok "verify, replicate, prune, gc without the key; verify --key opens" without_the_key
ok "--dry-run --measure is exact" dry_run_is_exact
ok "streams, and their import" streams
ok "export with the key" exported
ok "replicate leaves out what is encrypted and has no parent, and nothing else" parent_gone
ok "over the network: sent, restored, refused without its key" served_sealed
ok "a server that mixes generations, plain: refused, nothing is left" mixtures
ok "a server that mixes generations, encrypted: refused, nothing is left" mixtures --key "$W/key"
ok "a repository here that does: refused with the key or the manifest's hash" mixed_here
ok "proofs outlive pruned ancestors, and not more; a damaged one is found, and can be passed over" pruned
ok "what is left after all of it is sound" snapmedia verify "$W/second" --key "$W/key"
