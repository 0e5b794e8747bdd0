#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1
# disks: 64M 64M
# timeout: 400
# mem: 2G
#
# snapmeta against stores that the module has written: cleanly detached, and copied in the middle of its work.

set -u
# shellcheck source=ktap.sh
. "$(dirname "$0")/ktap.sh"

P=$DISK1 D=$DISK2 T=/tmp/meta
mkdir -p "$T"

# overwrite SEED: 500 random chunks of the volume get new content
overwrite()
{
	fio --name=o --filename=/dev/mapper/v --rw=randwrite --bs=4k --io_size=2M --size=64M --direct=1 --ioengine=psync --randseed="$1" \
		--output=/dev/null || exit 1
}

# file_has_sum FILE SUM: a file on a tmpfs, which knows no O_DIRECT
file_has_sum()
{
	out=$(sha256sum < "$1" | cut -d' ' -f1)
	[ "$out" = "$2" ]
}

json()
{
	local expr=$1
	shift
	out=$("$@") && python3 -c "import json,sys; d=json.load(sys.stdin); sys.exit(not ($expr))" <<< "$out"
}

flip()	# FILE BLOCK: change a byte in the middle of a block
{
	printf '\xa5' | dd of="$1" bs=1 seek=$(($2 * 4096 + 1000)) conv=notrunc status=none
}

works snapctl attach v "$P" "$D" --format || exit 1
overwrite 1
snapctl create --label 'first "one"' > /dev/null
sum_1=$(sum /dev/mapper/v)
overwrite 2
snapctl create > /dev/null
sum_2=$(sum /dev/mapper/v)
overwrite 3
blkdiscard -z -o 1048576 -l 1048576 /dev/mapper/v

ok "a diff in use is refused" fails snapmeta check "$D"
run snapmeta repair "$D"
ok "... by repair: 8" test "$rc" -eq 8

# What a crash at this moment leaves: nothing is in flight, but nothing is checkpointed either.
dd if="$D" of="$T/live.diff" bs=1M iflag=direct status=none
dd if="$P" of="$T/live.primary" bs=1M iflag=direct status=none
snapctl detach v
dd if="$D" of="$T/clean.diff" bs=1M iflag=direct status=none

ok "a cleanly detached diff has no errors" works snapmeta check --data "$D"
ok "nor has one that is copied while it is attached" works snapmeta check --data "$T/live.diff"
ok "checking wrote nothing" cmp "$D" "$T/clean.diff"
ok "check counts in JSON" json 'd["errors"] == 0 and d["clean"] and d["records"] > 500' snapmeta check --json "$D"
ok "dump names the generations" json '[g["generation"] for g in d["generations"]] == [1, 2] and d["generations"][0]["label"] == "first \"one\""' snapmeta dump "$D"
ok "dump has every record" json 'len(d["records"]) == sum(r["records"] for r in d["runs"]) > 500' snapmeta dump --records "$D"
ok "dump of an unclean diff shows what was replayed" json 'd["journal"]["replayed_groups"] > 0 and d["state"] == "active"' snapmeta dump "$T/live.diff"

ok "copy-generation from a clean diff" works snapmeta copy-generation "$D" "$P" 1 --to "$T/gen1"
ok "... is the generation" file_has_sum "$T/gen1" "$sum_1"
ok "copy-generation from an unclean diff" works snapmeta copy-generation "$T/live.diff" "$T/live.primary" 2 --to "$T/gen2"
ok "... is the generation" file_has_sum "$T/gen2" "$sum_2"
ok "copy-generation does not overwrite a file" fails snapmeta copy-generation "$D" "$P" 1 --to "$T/gen1"
run snapmeta copy-generation "$D" "$P" 9 --to "$T/gen9"
ok "an unknown generation is refused with 4" test "$rc" -eq 4
ok "... and leaves no file" test ! -e "$T/gen9"

run snapmeta check "$P"
ok "a device that is none of ours: 8" test "$rc" -eq 8

# Damage: a leaf of a run, and a preserved chunk.
cp "$T/clean.diff" "$T/bad.diff"
leaf=$(snapmeta dump "$D" | python3 -c 'import json,sys; d=json.load(sys.stdin); print(d["runs"][0]["segments"][0]["root"])')
flip "$T/bad.diff" "$leaf"
run snapmeta check "$T/bad.diff"
ok "a damaged block of a run is an error: 4" test "$rc" -eq 4
ok "... and is named" grep -q "block $leaf: checksum" <<< "$out"
cp "$T/clean.diff" "$T/bad.diff"
data=$(snapmeta dump --records "$D" | python3 -c 'import json,sys; d=json.load(sys.stdin); print([r["block"] for r in d["records"] if r["kind"] == "data" and r["generation"] == 1][0])')
flip "$T/bad.diff" "$data"
ok "damaged data does not show without --data" works snapmeta check "$T/bad.diff"
run snapmeta check --data "$T/bad.diff"
ok "... and is an error with it: 4" test "$rc" -eq 4
ok "copy-generation stops at it" fails snapmeta copy-generation "$T/bad.diff" "$P" 1 --to "$T/bad1"
ok "... and leaves no file" test ! -e "$T/bad1"

# Restore: what a dump has, and nothing else, is enough.
ok "dump --records" works snapmeta dump --records "$D"
printf '%s\n' "$out" > "$T/dump"
dd if=/dev/zero of="$D" bs=4096 count=2 conv=notrunc oflag=direct status=none
run snapmeta check "$D"
ok "without its superblocks a diff is none" test "$rc" -eq 8
ok "restore takes the dump back" works snapmeta restore --input "$T/dump" --output "$D" --data
ok "... without errors" works snapmeta check --data "$D"
ok "restore copies to a new file" works snapmeta restore --input "$T/dump" --output "$T/copy.diff" --data-from "$D"
ok "... without errors" works snapmeta check --data "$T/copy.diff"
ok "... with the same generation" works snapmeta copy-generation "$T/copy.diff" "$P" 2 --to "$T/gen2c"
ok "..." file_has_sum "$T/gen2c" "$sum_2"
ok "the module attaches what was restored" works snapctl attach v "$P" "$D"
run snapctl activate v@1
ok "generation 1 is what it was" test "$(sum /dev/snapvirt0)" = "$sum_1"
run snapctl activate v@2
ok "generation 2 is what it was" test "$(sum /dev/snapvirt1)" = "$sum_2"
run snapmeta restore --input "$T/dump" --output "$D"
ok "restore refuses a diff in use" test "$rc" -eq 5
snapctl deactivate v@1
snapctl deactivate v@2
snapctl detach v
run snapmeta restore --input "$T/dump" --output "$D"
ok "restore refuses a diff that was used since the dump" test "$rc" -eq 5

# Repair: each generation is what it was, or cannot be read, whatever block is damaged.
exact_or_not()	# FILE N SUM
{
	rm -f "$T/gen"
	if works snapmeta copy-generation "$1" "$P" "$2" --to "$T/gen"; then
		whole=$((whole + 1))
		file_has_sum "$T/gen" "$3"
	else
		gone=$((gone + 1))
	fi
}
whole=0 gone=0
blocks=$(snapmeta dump "$T/clean.diff" | python3 -c 'import json,sys; d=json.load(sys.stdin)
for r in d["runs"]:
    for s in r["segments"]: print(*{s["root"], s["root"] - s["blocks"] // 2, s["root"] - s["blocks"] + 1})')
for b in 0 1 $blocks; do
	cp "$T/clean.diff" "$T/bad.diff"
	flip "$T/bad.diff" "$b"
	run snapmeta repair --dry-run "$T/bad.diff"
	ok "block $b: repair --dry-run has something to say: 4" test "$rc" -eq 4
	run snapmeta repair "$T/bad.diff"
	ok "block $b: repaired: 1" test "$rc" -eq 1
	ok "block $b: no errors are left" works snapmeta check --data "$T/bad.diff"
	ok "block $b: nothing is left to do" works snapmeta repair "$T/bad.diff"
	ok "block $b: generation 1" exact_or_not "$T/bad.diff" 1 "$sum_1"
	ok "block $b: generation 2" exact_or_not "$T/bad.diff" 2 "$sum_2"
done
echo "# $whole generations whole, $gone not"
ok "some generations were saved, some not" test "$whole" -gt 3 -a "$gone" -gt 0
dd if=/dev/zero of="$T/bad.diff" bs=4096 count=2 conv=notrunc status=none
run snapmeta repair "$T/bad.diff"
ok "without superblocks nothing can be proved: 8" test "$rc" -eq 8
finish
