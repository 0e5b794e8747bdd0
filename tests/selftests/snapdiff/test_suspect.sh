#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1 uml-6.12-debug
# mem: 2G
# timeout: 300
#
# A primary that was written without us: seen after a detach; after a crash seen where we had not written, and suspected elsewhere.

. "${BASH_SOURCE%/*}/lib.sh"

V=/dev/mapper/v
export SNAPDIFF_STATE_DIR=/tmp/state
mkdir -p /tmp/m

fill() { dd if=/dev/urandom of="$1" bs=1M oflag=direct 2>/dev/null; sync; }
attach() { works attach v "$@"; }
detach() { works detach v; }

# volume DISK [COMMAND...]: a volume v on it, prepared by the command, with a generation; detached
volume()
{
	snapctl format /dev/d --force >/dev/null && attach "/dev/$1" /dev/d && { [ $# -eq 1 ] || "${@:2}"; } &&
		works create v --no-freeze && detach
}

# seen DISK: attach refuses it, and takes it when it is told so; all generations are lost then
seen()
{
	refused 4 "was written without" attach v "/dev/$1" /dev/d || return 1
	works attach v "/dev/$1" /dev/d --accept-changed && json 'all(g["state"] == "lost" for g in d["generations"])' list v
	local r=$?
	detach && return $r
}

# accepted DISK: attach has nothing against it, and nothing is suspect
accepted()
{
	attach "/dev/$1" /dev/d && json 'all(g["state"] == "live" and not g["suspect"] for g in d["generations"])' list v
	local r=$?
	detach && return $r
}

# patch DISK SECTOR: one sector is written
patch() { head -c 512 /dev/urandom | dd of="/dev/$1" bs=512 seek="$2" conv=notrunc,fsync 2>/dev/null; }

mounted() { mount "$2" -o "$3" "/dev/$1" /tmp/m && { [ "$3" = ro ] || date >/tmp/m/file; } && umount /tmp/m; }

# ---- after a detach ----

null_disk p 320 && null_disk d 64 || exit 1
for fs in ext4 xfs; do
	ok "$fs: a volume" volume p eval "wipefs -qa $V; mkfs.$fs -q $V"
	# (xfs writes a superblock even then)
	[ $fs != ext4 ] || ok "$fs: mounted read-only is no change" eval "mounted p -t$fs ro && accepted p"
	ok "$fs: mounted and written is seen" eval "mounted p -t$fs rw && seen p"
	ok "$fs: once more" volume p
	ok "$fs: just mounted and unmounted is seen" eval "mount -t $fs /dev/p /tmp/m && umount /tmp/m && seen p"
done

parts()
{
	printf 'label: gpt\nstart=20480,size=8192\nstart=81920,size=100000\n' | sfdisk -q $V 2>/dev/null
	[[ $(sfdisk -d $V) == *81920* ]]
}
ok "a volume with partitions" volume p parts
ok "nothing happens to it" accepted p
ok "a superblock in the second partition" eval "patch p $((81920 + 2)) && seen p"
null_gone p

null_disk p 24 || exit 1
end=$((24 * 2048))
for at in 0 129 2050 4095 $((end - 1)) $((end - 2048)); do
	ok "sector $at" eval "volume p && patch p $at && seen p"
done
ok "all of it, but for both ends" eval "volume p && dd if=/dev/urandom of=/dev/p bs=1M seek=3 count=19 conv=notrunc,fsync 2>/dev/null && seen p"

# ---- after a crash ----

null_disk cp 24 && null_disk cd 64 || exit 1

# crash: what is on the disks now is on cp and cd, as if the machine had gone; the volume itself goes in peace
crash() { sync && cp /dev/p /dev/cp && cp /dev/d /dev/cd && detach; }

# begin: a volume full of data, detached, attached again, generation 1 is in it, and what it is
begin()
{
	snapctl format /dev/d --force >/dev/null && attach /dev/p /dev/d && fill $V && works create v --no-freeze &&
		detach && attach /dev/p /dev/d && before=$(sum $V)
}
write() { dd if=/dev/urandom of=$V bs=64k seek="$1" count="$2" oflag=direct conv=notrunc 2>/dev/null; }
# suspects EXPRESSION: of the list d of them
suspects() { json "(lambda s: $1)([g[\"generation\"] for g in d[\"generations\"] if g[\"suspect\"]])" list v; }

begin && write 100 4 && works create v --no-freeze && crash
ok "nothing after a crash: attach says what is in doubt" eval 'attach /dev/cp /dev/cd && [[ $out == *"generations up to 2 are suspect"* ]]'
ok "list shows it" suspects 's == [1, 2]'
ok "status too" equal "$(stat_of v suspect)" 2
ok "generation 1 is what it was" generation v@1 "$before"
snapmedia init /tmp/media >/dev/null
back() { quiet snapbackup v --gen "$1" --dest /tmp/media --json "${@:2}"; }
num() { printf '%s' "$out" | sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p"; }
stored() { snaprestore --from /tmp/media --volume v --gen "$1" --to /tmp/back -q --force && generation v@"$1" "$(sum /tmp/back)"; }
ok "a backup says it, too" eval 'back 1 && [[ $out == *"is suspect"* ]]'
ok "no increment on a suspect base is made" eval '! back 2 --base 1 && [[ $out == *"base 1 is suspect"* ]]'
ok "but one that compares, with the reason" eval 'back 2 && [[ $out == *"increment on 1, found by comparing: generations up to 1 are suspect"* && $out == *"\"base\":1"* ]] &&
	[ "$(num change_bytes)" = $((4 * 65536)) ] && stored 2'
write 50 2
works create v --no-freeze
ok "a new generation is not suspect" suspects 's == [1, 2]'
ok "its first backup compares, too" eval 'back 3 -q && [[ $out == *"\"base\":2"* && $out == *"\"compared\":true"* && $out != *"is suspect"* ]] && [ "$(num change_bytes)" = $((2 * 65536)) ] && stored 3'
write 51 2
works create v --no-freeze
ok "the next one is an increment by what is known" eval 'back 4 -q --audit 100% && [[ $out == *"\"base\":3"* && $out == *"\"compared\":false"* ]] && [ "$(num audited_bytes)" = $((24 * 1048576 - 2 * 65536)) ]'
# Behind our back, below the volume that is attached: no list of changes knows of it.
head -c 4096 /dev/urandom | dd of=/dev/cp bs=4096 seek=1000 conv=notrunc,fsync oflag=direct 2>/dev/null
works create v --no-freeze
ok "an audit finds a write that was missed" eval 'back 5 --audit 100%; [ $? = 7 ] && [[ $out == *"AUDIT: 1 blocks differ from generation 4"*"offset 4096000:"* ]]'
ok "and comparing sends it" eval 'back 5 --compare && [ "$(num change_bytes)" = 4096 ] && stored 5'
ok "the repository is sound" quiet snapmedia verify /tmp/media
ok "pinning does not change it" eval 'works pin v@1 && works unpin v@1 && suspects "s == [1, 2]"'
detach
ok "a clean detach does not take it away" eval 'attach /dev/cp /dev/cd && suspects "s == [1, 2]"'
ok "without errors" eval 'detach && quiet snapmeta check /dev/cd --data'

begin && write 100 4 && crash
ok "who knows better can say so" eval 'attach /dev/cp /dev/cd --trust-primary && [[ $out != *suspect* ]] && suspects "s == []"'
ok "for this once" eval '! dmsetup table v | grep -q trust_primary'
detach

begin && write 20 4 && crash
dd if=/dev/urandom of=/dev/cp bs=1M seek=8 count=14 conv=notrunc,fsync 2>/dev/null
ok "dd after a crash, where we had not written, is seen" refused 4 "was written without" attach v /dev/cp /dev/cd
ok "and can be accepted" eval 'attach /dev/cp /dev/cd --accept-changed && json "[g[\"state\"] for g in d[\"generations\"]] == [\"lost\"]" list v'
detach

begin && write 128 240 && write 0 60 && crash
dd if=/dev/urandom of=/dev/cp bs=1M seek=9 count=10 conv=notrunc,fsync 2>/dev/null
ok "where we had written too, it is in doubt" eval 'attach /dev/cp /dev/cd && suspects "s == [1]"'
detach

begin && fill $V && crash
ok "all written by us is no reason to refuse" eval 'attach /dev/cp /dev/cd && suspects "s == [1]" && generation v@1 "$before"'
detach

# The generation that knew of the writes is gone: nothing can be compared.
begin && write 128 240 && works create v --no-freeze && works delete v@1 && sleep 2 && crash
ok "a changed set that is gone is no reason either" eval 'attach /dev/cp /dev/cd && suspects "s == [2]"'
detach

begin && works delete v@1 && crash
ok "without generations there is nothing to suspect" eval 'attach /dev/cp /dev/cd && [[ $out != *suspect* ]]'
detach
null_gone p d cp cd
finish
