#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 200
# Encryption by the client: what the repository has is of no use without the key, what it changes is seen with it, and all that a server
# does without looking into the data goes on as before.
. "$(dirname "$0")/media-lib.sh"
begin 10

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
ok "what is left after all of it is sound" snapmedia verify "$W/second" --key "$W/key"
