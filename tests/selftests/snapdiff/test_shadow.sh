#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.1
# timeout: 600
#
# Random steps against a model of the volume and its generations (tests/tools/shadow.c tells what it does). A fixed seed
# for each kind of store, and one that is new every time: it is printed, and named in every finding.

. "${BASH_SOURCE%/*}/lib.sh"

shadow_run()
{
	null_disk shp 8 "${power[@]}" && null_disk shd "$1" "${power[@]}" || return 1
	shift
	out=$(shadow "$@" /dev/shp /dev/shd 2>&1)
	rc=$?
	echo "$out" | grep '^#'
	if [ $rc -ne 0 ]; then
		for d in /dev/snapvirt*; do snapctl deactivate "$d"; done >/dev/null 2>&1
		snapctl detach shadow >/dev/null 2>&1
		dmsetup remove_all --force >/dev/null 2>&1
	fi
	null_gone shp shd
	return $rc
}

power=()
ok "chunks of 4 KiB" shadow_run 64 --seed 1 --steps 150 --sectors 6137
ok "chunks of 16 KiB, the last one partial" shadow_run 64 --seed 2 --steps 100 --sectors 8185 --chunk 16k
ok "chunks of 64 KiB, the last one partial" shadow_run 128 --seed 3 --steps 80 --sectors 8057 --chunk 64k
ok "chunks of 1 MiB, the last one partial" shadow_run 256 --seed 4 --steps 50 --sectors 9001 --chunk 1M
ok "the smallest journal" shadow_run 64 --seed 5 --steps 100 --sectors 6137 --journal 128k
ok "a new seed" shadow_run 64 --steps 100 --sectors 6137

power=(queue_mode=2 cache_size=64)
caches=$null_dir/shp,$null_dir/shd
ok "power cuts, volatile caches" shadow_run 64 --seed 6 --steps 100 --sectors 6137 --power "$caches"
ok "power cuts, a cut without a flush before it" shadow_run 64 --seed 13 --steps 40 --sectors 6137 --chunk 8k --power "$caches"
ok "power cuts, volatile caches, a new seed" \
	shadow_run 64 --steps 100 --chunk 8k --sectors 6137 --power "$caches"

power=()
ok "a diff that is too small" shadow_run 18 --seed 7 --steps 100 --sectors 8185 --may-lose
finish
