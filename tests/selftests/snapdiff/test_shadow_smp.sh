#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernels: uml-6.12-debug debian-6.1 debian-6.12
# smp: 2
# timeout: 240
#
# A small shadow run (see test_shadow.sh) where it is slow: with two processors, and with the kernel's own checks.

. "${BASH_SOURCE%/*}/lib.sh"

need null_disk shp 8
need null_disk shd 64
ok "25 steps" quiet shadow --seed 11 --steps 25 --sectors 2041 /dev/shp /dev/shd
echo "$out" | grep '^#'
[ "$failed" -eq 0 ] || { snapctl detach shadow; dmsetup remove_all --force; } >/dev/null 2>&1
finish
