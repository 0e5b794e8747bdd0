# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# KTAP for tests in bash. Source it, call ok for each case, end with finish.

ktap_n=0 ktap_failed=0
out= rc=0

# ok NAME COMMAND...: one case; $out and $rc are shown when it fails
ok()
{
	local name=$1
	shift
	ktap_n=$((ktap_n + 1))
	if "$@"; then
		echo "ok $ktap_n $name"
		return
	fi
	ktap_failed=$((ktap_failed + 1))
	echo "not ok $ktap_n $name"
	echo "# command: $*"
	echo "# last status $rc, end of its output:"
	[ -z "$out" ] || printf '%s\n' "$out" | tail -n 8 | cut -c1-200 | sed 's/^/#   /'
}

# run COMMAND...: $out is what it said on both streams, $rc its status
run()
{
	out=$("$@" 2>&1)
	rc=$?
}

# works COMMAND...
works()
{
	run "$@"
	[ "$rc" -eq 0 ]
}

# fails COMMAND...
fails()
{
	run "$@"
	[ "$rc" -ne 0 ]
}

# prints WANT COMMAND...
prints()
{
	local want=$1
	shift
	works "$@" && [ "$out" = "$want" ]
}

# sum DEVICE: checksum of its content, read past the page cache
sum()
{
	dd if="$1" bs=1M iflag=direct status=none | sha256sum | cut -d' ' -f1
}

# has_sum DEVICE SUM
has_sum()
{
	out=$(sum "$1")
	[ "$out" = "$2" ]
}

finish()
{
	echo "1..$ktap_n"
	[ "$ktap_failed" -eq 0 ]
	exit
}
