#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 900
#
# libFuzzer over what reads disks, netlink and streams: every input of the corpus again, then FUZZ_SECONDS (60) of new ones for each
# target, two targets at a time, from the same seed every time (FUZZ_SEED=0: another one). Inputs that fail are left in build/fuzz/: fix the bug and put them into the corpus.

set -u
cd "$(dirname "$0")/../.." || exit 1
seconds=${FUZZ_SECONDS:-60} seed=${FUZZ_SEED:-1}
targets="fuzz_open fuzz_read fuzz_repair fuzz_netlink fuzz_media"
out=build/fuzz n=0 failed=0

corpus_of()
{
	case $1 in
	fuzz_netlink) echo tests/fuzz/corpus/netlink ;;
	fuzz_media) echo tests/fuzz/corpus/media ;;
	*) echo tests/fuzz/corpus/image ;;
	esac
}

ok()	# NAME LOG STATUS
{
	n=$((n + 1))
	if [ "$3" -eq 0 ]; then
		echo "ok $n $1"
	else
		failed=$((failed + 1))
		tail -n 40 "$2" | sed 's/^/# /'
		echo "not ok $n $1"
	fi
}

# leaks are looked for when an input is replayed; -timeout: an endless loop is a bug
fuzz()	# TARGET: new inputs go to build/
{
	mkdir -p "$out/found/$1"
	"$out/$1" -seed="$seed" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -max_len=262144 -print_final_stats=1 -detect_leaks=0 \
		-artifact_prefix="$out/$1-" "$out/found/$1" "$(corpus_of "$1")" > "$out/$1.log" 2>&1
}

make -s -j2 fuzz-programs > "$out.log" 2>&1 || {
	mkdir -p "$out"
	ok "the targets are built" "$out.log" 1
	echo "1..1"
	exit 1
}
echo "KTAP version 1"
for t in $targets; do
	"$out/$t" -timeout=20 -rss_limit_mb=2048 "$(corpus_of "$t")"/* > "$out/$t.replay" 2>&1
	ok "$t: $(find "$(corpus_of "$t")" -type f | wc -l) inputs of the corpus" "$out/$t.replay" $?
done
running=
finish_two()
{
	local p
	for p in $running; do
		wait "${p%%:*}"
		ok "${p#*:}: $seconds s of new inputs" "$out/${p#*:}.log" $?
		awk -v t="${p#*:}" '/cov:/ { for (i = 1; i < NF; i++) { if ($i == "cov:") c = $(i + 1); if ($i == "ft:") f = $(i + 1) } }
			/number_of_executed_units/ { e = $2 } END { print "# " t ": " e " executions, " c " edges, " f " features" }' "$out/${p#*:}.log"
	done
	running=
}
if [ "$seconds" -gt 0 ]; then
	for t in $targets; do
		fuzz "$t" &
		running="$running $!:$t"
		# shellcheck disable=SC2086
		set -- $running
		[ $# -lt 2 ] || finish_two
	done
	finish_two
fi
echo "1..$n"
[ "$failed" -eq 0 ]
