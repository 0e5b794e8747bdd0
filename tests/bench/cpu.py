#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Tell a guest how much processor time its kernel has used: rig.py's class Cpu asks.
#
# usage: cpu.py SCRATCH      (on the host, beside tests/vm/guest --scratch SCRATCH; killed when that has ended)
#
# In User-Mode Linux that is the time of the kernel's own process, without the programs in the guest, which are
# other processes; with QEMU it is the whole machine.

import os
import sys
import time


def kernel_of(group):
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open('/proc/%s/stat' % pid, encoding='ascii', errors='replace') as f:
                name, rest = f.read().split('(', 1)[1].rsplit(')', 1)
        except OSError:
            continue
        if int(rest.split()[2]) == group and (name == 'linux' or name.startswith('qemu')):
            return pid
    return None


def cpu_us(pid):
    total = 0
    for task in os.listdir('/proc/%s/task' % pid):
        with open('/proc/%s/task/%s/schedstat' % (pid, task), encoding='ascii') as f:
            total += int(f.read().split()[0])
    return total / 1e3


def main():
    scratch = sys.argv[1]
    asked = os.path.join(scratch, 'cpu')
    pid = None
    while True:
        time.sleep(0.005)
        for name in os.listdir(asked):
            if not name.startswith('ask'):
                continue
            try:
                with open(os.path.join(scratch, 'guest.pid'), encoding='ascii') as f:
                    pid = pid or kernel_of(int(f.read()))
                answer = cpu_us(pid)
            except (OSError, TypeError, ValueError):
                continue
            path = os.path.join(asked, name.replace('ask', 'answer'))
            with open(path + '.new', 'w', encoding='ascii') as f:
                f.write('%f' % answer)
            os.rename(path + '.new', path)
            os.unlink(os.path.join(asked, name))


main()
