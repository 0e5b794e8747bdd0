#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1 uml-6.12-debug
# disks: 64M 128M 64M 64M
# timeout: 300
#
# The face of snapctl: what it prints, which exit codes it gives, and that what it refuses changes nothing.

set -u
P=$DISK1 D=$DISK2 X=$DISK3 Y=$DISK4
n=0 failed=0

# ok NAME CONDITION...: one case
ok()
{
	local name=$1
	shift
	n=$((n + 1))
	if "$@"; then
		echo "ok $n $name"
	else
		failed=$((failed + 1))
		echo "not ok $n $name"
		echo "# command: $*"
		[ -z "${out:-}" ] || printf '%s\n' "$out" | sed 's/^/#   /'
	fi
}

# run ARG...: snapctl ARG...; $out has what it said on both streams, $rc its status
run()
{
	out=$(snapctl "$@" 2>&1)
	rc=$?
}

# refused CODE TEXT ARG...: ends with CODE, a line "snapctl: ..." that holds TEXT
refused()
{
	local code=$1 text=$2
	shift 2
	run "$@"
	[ "$rc" -eq "$code" ] || { out="status $rc: $out"; return 1; }
	[[ $out == snapctl:* && $out == *"$text"* ]]
}

works()
{
	run "$@"
	[ "$rc" -eq 0 ] || { out="status $rc: $out"; return 1; }
}

prints()
{
	local want=$1
	shift
	works "$@" && [ "$out" = "$want" ]
}

# json EXPRESSION ARG...: the output of snapctl ARG... --json is JSON, as d it fulfils the Python expression
json()
{
	local filter=$1
	shift
	run "$@" --json
	[ "$rc" -eq 0 ] || return 1
	printf '%s' "$out" | python3 -c "
import json, sys
d = json.load(sys.stdin)
sys.exit(0 if ($filter) else 1)"
}

sum() { sha256sum < "$1"; }
unchanged() { [ "$(sum "$1")" = "$2" ]; }

# table_loads NAME: the table as it is printed makes the same device, which goes on as before
table_loads()
{
	local before after

	before=$(dmsetup table "$1")
	[[ $before == *" snapdiff "* ]] || return 1
	dmsetup load "$1" --table "$before" && dmsetup resume "$1" || return 1
	after=$(dmsetup table "$1")
	out="$before / $after"
	[ "$before" = "$after" ] && snapctl status "$1" > /dev/null
}

mount_generation()
{
	snapctl activate w@2 > /tmp/dev && mkdir -p /tmp/gen &&
		mount -o ro,noload "$(cat /tmp/dev)" /tmp/gen && [ "$(cat /tmp/gen/file)" = hello ] &&
		umount /tmp/gen && snapctl deactivate w@2
}

# ---- format ----

before=$(sum "$D")
ok "format refuses a wrong chunk" refused 1 "chunk" format "$D" --chunk 5k
ok "format refuses a chunk above 1M" refused 1 "chunk" format "$D" --chunk 2M
ok "format refuses what is no device" refused 4 "not a block device" format /etc/passwd
ok "format refuses what is not there" refused 4 "/dev/nope" format /dev/nope
mkfs.ext4 -q -F "$X"
xsum=$(sum "$X")
ok "format refuses a filesystem" refused 5 "ext4" format "$X"
mkdir -p /tmp/mnt
mount "$X" /tmp/mnt
ok "format refuses a mounted device, even forced" refused 5 "mounted on /tmp/mnt" format --force "$X"
umount /tmp/mnt
xsum=$(sum "$X")
ok "format wrote nothing when it refused" unchanged "$D" "$before"
ok "format" works format "$D" --chunk 8k --journal-size 4M
ok "format refuses a store" refused 5 "snapdiff store" format "$D"
ok "format --force" works format --force "$D" --chunk 4k

# ---- attach ----

ok "attach refuses the same device twice" refused 4 "same device" attach v "$P" "$P"
ok "attach refuses a diff without a store" refused 4 "ext4" attach v "$P" "$X"
ok "attach --format refuses a foreign signature" refused 5 "ext4" attach v "$P" "$X" --format
ok "attach refuses a bad name" refused 1 "a/b" attach a/b "$P" "$D"
ok "attach refuses a bad policy" refused 1 "drop-oldest" attach v "$P" "$D" --on-full never
mount "$X" /tmp/mnt
ok "attach refuses a mounted primary" refused 5 "mounted" attach v "$X" "$D"
umount /tmp/mnt
xsum=$(sum "$X")
ok "nothing is attached" test ! -e /dev/mapper/v
ok "status of nothing" json 'd == {"volumes": []}' status
ok "create without a volume" refused 4 "no volume" create
ok "attach prints the device" prints /dev/mapper/v attach v "$P" "$D"
ok "the device is there" test -b /dev/mapper/v
ok "attach refuses a name in use" refused 5 "exists" attach v "$X" "$D"
ok "attach refuses a diff in use" refused 5 "in use by /dev/mapper/v" attach w "$X" "$D"
ok "attach refuses a primary in use" refused 5 "in use by /dev/mapper/v" attach w "$P" "$X"
ok "format refuses a diff in use" refused 5 "in use" format --force "$D"
ok "refusals left the third disk alone" unchanged "$X" "$xsum"
ok "the table loads again as it is printed" table_loads v
ok "the uuid begins with SNAPDIFF-" test "$(dmsetup info -c --noheadings -o uuid v | cut -c1-9)" = SNAPDIFF-

# ---- generations ----

dd if=/dev/urandom of=/dev/mapper/v bs=1M count=8 oflag=direct status=none
ok "create" prints v@1 create
g1=$(sum /dev/mapper/v)
dd if=/dev/urandom of=/dev/mapper/v bs=64k count=4 seek=3 oflag=direct status=none
ok "create with a name and a label" prints v@2 create v --label 'second "one"'
g2=$(sum /dev/mapper/v)
dd if=/dev/urandom of=/dev/mapper/v bs=4k count=1 seek=512 oflag=direct status=none
ok "create refuses a long label" refused 1 "label" create v --label "$(printf '%064d' 0)"
ok "create refuses an unknown volume" refused 4 "no such volume" create nope
ok "create refuses a volume named twice" refused 1 "twice" create v v
ok "create refuses both of freeze and no-freeze" refused 1 "exclude" create v --freeze --no-freeze
ok "list --json" json 'len(d["generations"]) == 2 and
	[g["generation"] for g in d["generations"]] == [1, 2] and
	d["generations"][1]["label"] == "second \"one\"" and
	all(g["volume"] == "v" and g["state"] == "live" and g["size"] == 64 << 20 and
	    "created" in g and "changed_bytes" in g for g in d["generations"])' list
ok "list NAME" json 'len(d["generations"]) == 2' list v
ok "list refuses an unknown volume" refused 4 "no such volume" list nope
ok "list -o" prints $'v  1\nv  2' list --noheadings -o volume,generation
ok "list refuses an unknown column" refused 1 "unknown column" list -o nope

# ---- extents ----

ok "diff of two generations" json 'd["extents"] == [{"offset": 196608, "length": 262144}]' diff v@1 v@2
ok "diff until now" json 'd["extents"] == [{"offset": 2097152, "length": 4096}]' diff v@2 v
ok "diff from the first until now" json 'sum(e["length"] for e in d["extents"]) == 262144 + 4096' diff v@1 v
ok "diff refuses the wrong order" refused 1 "not newer" diff v@2 v@1
ok "diff refuses an unknown generation" refused 4 "no such generation" diff v@7 v
ok "map covers everything" json 'sum(e["length"] for e in d["extents"]) == 64 << 20 and
	[e["offset"] for e in d["extents"]] == [sum(f["length"] for f in d["extents"][:i])
	for i in range(len(d["extents"]))] and
	sum(e["length"] for e in d["extents"] if e["where"] == "diff") == 262144 + 4096' map v@1
ok "map of a range" json 'sum(e["length"] for e in d["extents"]) == 8192' map v@1 --offset 192k --length 8k
ok "map refuses an unknown generation" refused 4 "no such generation" map v@3
ok "map says nothing on stdout when it refuses" test -z "$(snapctl map v@3 --json 2>/dev/null)"

# ---- virtual volumes ----

ok "activate prints the device" prints /dev/snapvirt0 activate v@1
ok "activate again gives the same" prints /dev/snapvirt0 activate v@1
ok "activate another" prints /dev/snapvirt1 activate v@2
ok "generation 1 reads as it was" unchanged /dev/snapvirt0 "$g1"
ok "generation 2 reads as it was" unchanged /dev/snapvirt1 "$g2"
ok "list shows the devices" prints $'/dev/snapvirt0\n/dev/snapvirt1' list -n -o device
ok "delete refuses an active generation" refused 5 "v@1" delete v@1
ok "activate refuses an unknown generation" refused 4 "no such generation" activate v@9
ok "deactivate by device" works deactivate /dev/snapvirt1
ok "deactivate refuses what is not active" refused 4 "v@2" deactivate v@2
ok "deactivate refuses another path" refused 1 "expected" deactivate /dev/null
exec 9< /dev/snapvirt0
ok "deactivate refuses an open device" refused 5 "v@1" deactivate v@1
ok "detach refuses while a generation is read" refused 5 "in use as /dev/snapvirt0" detach v
exec 9<&-
ok "deactivate" works deactivate v@1
ok "the device is gone" test ! -e /dev/snapvirt0

# ---- pin, bookmark, delete ----

ok "pin" works pin v@1
ok "delete refuses a pinned generation" refused 5 "pinned" delete v@1
ok "unpin" works unpin v@1
ok "delete checks all before the first" refused 4 "no such generation" delete v@2 v@9
ok "nothing was deleted" json 'len(d["generations"]) == 2' list
ok "bookmark" works bookmark v@1
ok "a bookmark is no longer readable" refused 1 "bookmark" activate v@1
ok "a bookmark is still a base" json 'len(d["extents"]) == 1' diff v@1 v@2
works create
works create
ok "delete a range" works delete v@2..4
ok "numbers are not used again" prints v@5 create
ok "delete refuses an empty range" refused 4 "between 7 and 9" delete v@7..9

# ---- status, monitor ----

ok "status --json" json 'len(d["volumes"]) == 1 and d["volumes"][0]["volume"] == "v" and
	d["volumes"][0]["chunk_size"] == 4096 and d["volumes"][0]["size"] == 64 << 20 and
	d["volumes"][0]["state"] == "rw" and d["volumes"][0]["on_full"] == "drop-oldest" and
	d["volumes"][0]["live"] == 1 and d["volumes"][0]["bookmarks"] == 1 and
	0 < d["volumes"][0]["diff_used_percent"] < 100 and
	d["volumes"][0]["primary"] == "'"$P"'" and d["volumes"][0]["diff"] == "'"$D"'" and
	d["volumes"][0]["chunks_copied"] >= 65' status
ok "status in text" works status v
ok "another policy" works set v --on-full drop-all
ok "status shows it" prints drop-all status v -n -o on_full
ok "the table has it" eval '[[ $(dmsetup table v) == *" on_full drop-all"* ]]'
ok "set refuses an unknown policy" refused 1 "expected" set v --on-full never
ok "set refuses to change nothing" refused 1 "what is to be changed" set v
ok "set refuses an unknown volume" refused 4 "no such volume" set nope --on-full drop-all
works set v --on-full drop-oldest
ok "another label" works label v@5 "it's another"
ok "list shows it" json 'd["generations"][-1]["label"] == "it'"'"'s another"' list v
ok "no label" eval 'works label v@5 "" && json "d[\"generations\"][-1][\"label\"] == \"\"" list v'
ok "label refuses a long one" refused 1 "too long" label v@5 "$(printf '%064d' 0)"
ok "label refuses an unknown generation" refused 4 "no such generation" label v@99 x
ok "status refuses an unknown volume" refused 4 "no such volume" status nope
snapctl monitor --json --count 2 --timeout 20 > /tmp/events 2>&1 &
sleep 1
works create --label watched
works delete v@6
wait $!
rc=$?
out=$(cat /tmp/events)
ok "monitor ends after its count" test "$rc" -eq 0
ok "monitor tells what happened" python3 -c '
import json
e = [json.loads(l) for l in open("/tmp/events")]
assert [(x["event"], x["volume"], x["generation"]) for x in e] == [("created", "v", 6), ("deleted", "v", 6)]'
ok "monitor ends after its time" works monitor --timeout 1

# ---- who may ----

if command -v setpriv >/dev/null; then
	snapctl() { setpriv --reuid 65534 --regid 65534 --clear-groups "$(type -P snapctl)" "$@"; }
	ok "an ordinary user may not list" refused 2 "" list
	ok "an ordinary user may not create" refused 2 "" create v
	ok "an ordinary user may not watch" refused 2 "" monitor --timeout 1
	unset -f snapctl
fi

# ---- several volumes, freeze, detach ----

ok "attach --format makes the store" prints /dev/mapper/w attach w "$X" "$Y" --format --on-full drop-all
ok "on-full is what was asked for" prints drop-all status w -n -o on_full
ok "the table with a policy loads again" table_loads w
ok "on-full has survived it" prints drop-all status w -n -o on_full
ok "create without a name names the volumes" refused 1 "v w" create
ok "create of two" prints $'v@7\nw@1' create v w
mount /dev/mapper/w /tmp/mnt
echo hello > /tmp/mnt/file
ok "create freezes what is mounted" prints w@2 create w
ok "create --no-freeze" prints w@3 create w --no-freeze
ok "list tells which was frozen" prints $'no\nyes\nno' list w -n -o frozen
ok "a frozen generation mounts without recovery" mount_generation
ok "detach refuses a mounted volume" refused 5 "mounted on /tmp/mnt" detach w
umount /tmp/mnt
works activate w@1
ok "detach deactivates what nobody reads" works detach w
ok "the volume is gone" test ! -e /dev/mapper/w
ok "detach refuses an unknown volume" refused 4 "no such volume" detach w
dmsetup create other --table "0 8 zero"
ok "detach refuses a foreign dm device" refused 4 "not one of snapdiff" detach other
dmsetup remove other
list_before=$(snapctl list v --json)
ok "detach" works detach v
ok "list is empty" json 'd == {"generations": []}' list
ok "attach again" prints /dev/mapper/v attach v "$P" "$D" --format
ok "generations are there again" test "$(snapctl list v --json)" = "$list_before"
works detach v

# ---- the wrong primary ----

small=/dev/mapper/small
dmsetup create small --table "0 65536 linear $P 0"
ok "attach refuses a primary that is too small" refused 4 "generations would be lost" attach v "$small" "$D"
dmsetup remove small
ok "a refused attach lost nothing" prints /dev/mapper/v attach v "$P" "$D"
ok "generations are still there" test "$(snapctl list v --json)" = "$list_before"
works detach v
dd if="$P" of=/tmp/first bs=4k count=1 status=none
echo surprise > "$P"
dsum=$(sum "$D")
ok "attach refuses a primary written without its diff" refused 4 "generations would be lost" attach v "$P" "$D"
ok "a refused attach wrote nothing" unchanged "$D" "$dsum"
dd if=/tmp/first of="$P" bs=4k count=1 status=none
ok "as it was, the primary is accepted" prints /dev/mapper/v attach v "$P" "$D"
ok "a refused attach lost nothing" test "$(snapctl list v --json)" = "$list_before"
works detach v
echo surprise > "$P"
run attach v "$P" "$D" --accept-changed
ok "attach --accept-changed warns" test "$rc" -eq 0 -a "${out#*warning*lost}" != "$out"
ok "its generations are lost" json 'all(g["state"] in ("lost", "bookmark") for g in d["generations"])' list v
ok "activate refuses a lost generation" refused 6 "lost" activate v@5
works detach v

# ---- a damaged diff, a copied one ----

works attach w "$X" "$Y"
dd if="$Y" of="$P" bs=1M status=none
ok "attach refuses a copy of an attached diff" refused 5 "attached already as w" attach q "$D" "$P"
works create w
dd if=/dev/urandom of=/dev/mapper/w bs=64k count=10 oflag=direct status=none
works detach w
cp "$Y" "$SCRATCH/y.img"
dd if=/dev/urandom of="$Y" bs=4k seek=2 conv=notrunc status=none 2>/dev/null
ok "attach refuses a damaged diff and says why" refused 6 "damaged" attach w "$X" "$Y"
ok "nothing is left of it" test ! -e /dev/mapper/w -a -z "$(dmsetup ls | grep ^w)"
ok "nor with --format" refused 6 "damaged" attach w "$X" "$Y" --format
cp "$SCRATCH/y.img" "$Y"
dd if=/dev/zero of="$Y" bs=4k count=1 conv=notrunc status=none
ok "attach with one damaged superblock" prints /dev/mapper/w attach w "$X" "$Y"
works detach w
cp "$SCRATCH/y.img" "$Y"
for at in 100 4196; do
	printf 'damage' | dd of="$Y" bs=1 seek=$at conv=notrunc status=none
done
ok "attach refuses two damaged superblocks" refused 6 "no valid superblock" attach w "$X" "$Y"
rm "$SCRATCH/y.img"

echo "1..$n"
[ "$failed" -eq 0 ]
