#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The measurements, inside a guest; scripts/bench starts it. Every peer gets the
# same two memory-backed null_blk devices (primary and where it keeps old blocks) in turn:
# one round is all peers one after the other, rounds are repeated, and what is compared are
# medians over rounds, so that a machine that slows down slows all peers down.
#
# Every page of every device has been written before the first measurement, with
# bytes that are not zero: neither null_blk's page allocation nor our records of zero chunks
# (which need no copy) are part of any figure.
#
# Workloads (the numbers behind a name are snapshots; for snapdiff: generations):
#   none        random 4 KiB writes, attached but without any snapshot
#   first       the same with one snapshot, each block for the first time
#   again       the same blocks once more
#   mixed       the same, 70 % reads, 32 at a time
#   first4, again4, first64, first1000    peers that copy for each snapshot stop at 4
#   seqfirst    1 MiB sequential first writes, one snapshot
#   vsame       1 MiB sequential reads of the snapshot, nothing changed since
#   vchanged    the same with every block changed since, in random order
#   vseq        the same with every block changed since, in order
#   vrandom     4 KiB random reads of the same
#   one         4 KiB first writes one at a time: time of each
#   sync        the same with a flush behind each; syncagain: blocks already preserved
#
# Device models (--model):
#   memory      processor cost alone
#   latency     every request takes 100 us (workloads one, first, again)
#   cache       a volatile write cache (workloads sync, syncagain)

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

NULLB = '/sys/kernel/config/nullb'
DEEP = ['--iodepth=256', '--iodepth_batch_submit=128',
        '--iodepth_batch_complete_min=64', '--iodepth_batch_complete_max=256']
RANDOM = ['--rw=randwrite', '--bs=4k'] + DEEP
SEQUENTIAL = ['--rw=write', '--bs=1M', '--iodepth=16']
READ = ['--rw=read', '--bs=1M', '--iodepth=16']
ONE = ['--rw=randwrite', '--bs=4k', '--iodepth=1', '--size=8M']
FEW = ['--rw=randwrite', '--bs=4k', '--size=64M'] + DEEP
MIXED = ['--rw=randrw', '--rwmixread=70', '--bs=4k', '--iodepth=32',
         '--iodepth_batch_submit=16', '--iodepth_batch_complete_min=8']
RANDREAD = ['--rw=randread', '--bs=4k'] + DEEP
WORKLOADS = {'none': 'k IOPS', 'first': 'k IOPS', 'again': 'k IOPS', 'mixed': 'k IOPS',
             'first4': 'k IOPS', 'again4': 'k IOPS', 'first64': 'k IOPS',
             'first1000': 'k IOPS', 'seqfirst': 'MB/s', 'vsame': 'MB/s',
             'vchanged': 'MB/s', 'vseq': 'MB/s', 'vrandom': 'k IOPS',
             'one': 'us', 'sync': 'us', 'syncagain': 'us'}
# (snapshots, steps): a step is (workload, fio arguments, device or snapshot, writes all blocks)
SCENARIOS = {
    'memory': (
        (0, [('none', RANDOM, 'dev', True)]),
        (1, [('vsame', READ, 'snap', False), ('first', RANDOM, 'dev', True),
             ('again', RANDOM, 'dev', True), ('vchanged', READ, 'snap', False),
             ('vrandom', RANDREAD, 'snap', False)]),
        (1, [('mixed', MIXED, 'dev', False)]),
        (1, [('seqfirst', SEQUENTIAL, 'dev', True), ('vseq', READ, 'snap', False)]),
        (4, [('first4', RANDOM, 'dev', True), ('again4', RANDOM, 'dev', True)]),
        (64, [('first64', RANDOM, 'dev', True)]),
        (1000, [('first1000', RANDOM, 'dev', True)])),
    'latency': ((1, [('one', ONE, 'dev', False)]),
                (1, [('first', FEW, 'dev', False), ('again', FEW, 'dev', False)])),
    'cache': ((1, [('sync', ONE + ['--fsync=1'], 'dev', False),
                   ('syncagain', ONE + ['--fsync=1'], 'dev', False)]),),
}
MODELS = {'memory': (), 'latency': (('irqmode', 2), ('completion_nsec', 100000)),
          'cache': (('cache_size', 64),)}


def sh(*cmd, text=None):
    return subprocess.run(cmd, check=True, input=text, text=True,
                          stdout=subprocess.PIPE).stdout.strip()


def null_blk(name, mib, model=()):
    d = os.path.join(NULLB, name)
    os.mkdir(d)
    for key, value in (('size', mib), ('memory_backed', 1), ('blocksize', 4096),
                       ('queue_mode', 0), ('discard', 0), *model, ('power', 1)):
        try:
            with open(os.path.join(d, key), 'w', encoding='ascii') as f:
                f.write(str(value))
        except OSError:
            if key != 'queue_mode':     # newer kernels have request queues only
                raise
    return '/dev/' + name


def fill(dev):
    block = os.urandom(1 << 20)
    with open(dev, 'wb', buffering=0) as f:
        try:
            while f.write(block):
                pass
        except OSError:
            pass
        os.fsync(f.fileno())


def sectors(dev):
    return int(sh('blockdev', '--getsz', dev))


def fio(dev, args, unit):
    """k IOPS, MB/s, or us for each request; once over the whole device (or --size of it)."""
    out = json.loads(sh('fio', '--name=x', '--filename=' + dev, '--ioengine=libaio',
                        '--direct=1', '--gtod_reduce=1', '--thread', '--output-format=json',
                        '--randrepeat=0', '--norandommap=0', *args))
    job = out['jobs'][0]
    done = [job[k] for k in ('read', 'write') if job[k]['total_ios']]
    if job['error'] or not done:
        sys.exit('bench: fio failed on ' + dev)
    if unit == 'us':
        return sum(d['runtime'] for d in done) * 1e3 / sum(d['total_ios'] for d in done)
    return sum(d['iops'] for d in done) / 1e3 if unit == 'k IOPS' else \
        sum(d['bw_bytes'] for d in done) / 1e6


class Dm:
    """dm devices by name, removed in reverse order."""

    def __init__(self):
        self.names = []

    def make(self, name, table):
        sh('dmsetup', 'create', name, text=table)
        self.names.append(name)
        return '/dev/mapper/' + name

    def clear(self):
        for name in reversed(self.names):
            sh('dmsetup', 'remove', '--retry', name)
        self.names = []


class Linear:
    name = 'dm-linear'

    def __init__(self, rig):
        self.rig, self.dm = rig, Dm()

    def up(self, snapshots):
        p = self.rig.primary
        self.dev = self.dm.make('b-lin', '0 %d linear %s 0' % (sectors(p), p))
        self.snap = self.dev

    most = 0

    def check(self, copied):
        """A snapshot that was lost on the way would make a fine figure. @copied: every block, none, or (None) some."""

    def down(self):
        self.dm.clear()


class Raw(Linear):
    name = 'raw'

    def up(self, snapshots):
        self.dev = self.snap = self.rig.primary


class Snapdiff(Linear):
    name = 'snapdiff'
    most = 1000

    def up(self, snapshots):
        sh('snapctl', 'format', '--force', self.rig.cow[0])
        self.dev = sh('snapctl', 'attach', 'b', self.rig.primary, self.rig.cow[0])
        self.snap = None
        for n in range(snapshots):
            sh('snapctl', 'create', 'b')
        if snapshots:
            self.snap = sh('snapctl', 'activate', 'b@1')

    def check(self, copied):
        v = json.loads(sh('snapctl', 'status', 'b', '--json'))['volumes'][0]
        chunks = sectors(self.rig.primary) * 512 // v['chunk_size']
        if v['lost'] or v['state'] != 'rw' or copied is not None and v['chunks_copied'] != (chunks if copied else 0):
            sys.exit('bench: snapdiff did not do its work: %s' % v)

    def down(self):
        sh('snapctl', 'detach', 'b')


class Snapshot(Linear):
    """dm-snapshot, persistent, 4 KiB chunks: the best its table line offers."""
    name = 'dm-snapshot'
    most = 4

    def up(self, snapshots):
        p = self.rig.primary
        n = sectors(p)
        self.snap = None
        for i in range(snapshots):
            with open(self.rig.cow[i], 'r+b', buffering=0) as f:
                f.write(bytes(4096))
            sh('blockdev', '--flushbufs', self.rig.cow[i])
        # The origin last: when it is resumed it learns the chunk size to split bios by.
        for i in range(snapshots):
            self.snap = self.dm.make('b-snap%d' % i, '0 %d snapshot %s %s P 8' %
                                     (n, p, self.rig.cow[i]))
        self.dev = self.dm.make('b-org', '0 %d snapshot-origin %s' % (n, p))

    def check(self, copied):
        for name in self.dm.names[:-1]:
            used = sh('dmsetup', 'status', name).split()[3]
            done = used[0].isdigit() and int(used.split('/')[0]) >= sectors(self.rig.primary)
            if not used[0].isdigit() or copied and not done:
                sys.exit('bench: %s did not do its work: %s' % (name, used))


class Thin(Linear):
    """dm-thin, 64 KiB blocks, the volume fully provisioned before the snapshot."""
    name = 'dm-thin'
    most = 4

    def up(self, snapshots):
        meta, data = self.rig.thin
        n = sectors(self.rig.primary)
        with open(meta, 'r+b', buffering=0) as f:
            f.write(bytes(1 << 20))
        sh('blockdev', '--flushbufs', meta)
        pool = self.dm.make('b-pool', '0 %d thin-pool %s %s 128 0 1 skip_block_zeroing' %
                            (sectors(data), meta, data))
        sh('dmsetup', 'message', pool, '0', 'create_thin 0')
        self.dev = self.dm.make('b-thin', '0 %d thin %s 0' % (n, pool))
        fio(self.dev, SEQUENTIAL, 'MB/s')
        self.snap = None
        for i in range(snapshots):
            sh('dmsetup', 'suspend', 'b-thin')
            sh('dmsetup', 'message', pool, '0', 'create_snap %d 0' % (i + 1))
            sh('dmsetup', 'resume', 'b-thin')
        if snapshots:
            self.snap = self.dm.make('b-tsnap', '0 %d thin %s 1' % (n, pool))


class Rig:
    def __init__(self, mib, model):
        sh('modprobe', 'null_blk', 'nr_devices=0')
        model = MODELS[model]
        self.primary = null_blk('prim', mib, model)
        self.cow = [null_blk('cow%d' % i, mib + mib // 8 + 32, model) for i in range(4)]
        self.thin = (null_blk('tmeta', 32, model), null_blk('tdata', 2 * mib + 64, model))
        for dev in (self.primary, *self.cow, *self.thin):
            fill(dev)


def scenarios(peer, model, wanted):
    """(workload, figure) of one round of one peer."""
    plain = type(peer) in (Linear, Raw)
    for snapshots, steps in SCENARIOS[model]:
        steps = [s for s in steps if s[0] in wanted]
        if not steps or (snapshots > peer.most if not plain else snapshots > 1):
            continue
        peer.up(snapshots)
        for name, args, which, _ in steps:
            yield name, fio(getattr(peer, which), args, WORKLOADS[name])
        writes = [s[3] for s in steps if s[2] == 'dev']
        peer.check(None if writes and not any(writes) else bool(snapshots and writes))
        peer.down()


def table(results, peers, base='dm-linear'):
    """Medians, and in brackets the ratio to dm-linear of the same workload."""
    lines = ['%-9s %-7s' % ('', '') + ''.join('%19s' % p for p in peers)]
    for w, unit in WORKLOADS.items():
        med = {p: statistics.median(v) for (p, x), v in results.items() if x == w}
        if not med:
            continue
        ref = med.get(base) or statistics.median(
            results.get((base, w.rstrip('0146')), [0]))
        cells = ['%11.1f (%.2f)' % (med[p], med[p] / ref) if p in med and ref else
                 '%11.1f       ' % med[p] if p in med else '-' for p in peers]
        lines.append('%-9s %-7s' % (w, unit) + ''.join('%19s' % c for c in cells))
    return '\n'.join(lines)


def summary(results):
    return [{'peer': p, 'workload': w, 'unit': WORKLOADS[w],
             'median': statistics.median(v), 'min': min(v), 'max': max(v), 'values': v}
            for (p, w), v in sorted(results.items())]


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--rounds', type=int, default=5)
    ap.add_argument('--model', choices=MODELS, default='memory')
    ap.add_argument('--mib', type=int, default=256)
    ap.add_argument('--peers', default='raw,dm-linear,snapdiff,dm-snapshot,dm-thin')
    ap.add_argument('--workloads', default=','.join(WORKLOADS))
    ap.add_argument('--verbose', action='store_true')
    ap.add_argument('--json')
    a = ap.parse_args()

    known = {c.name: c for c in (Raw, Linear, Snapdiff, Snapshot, Thin)}
    wanted = a.workloads.split(',')
    if set(a.peers.split(',')) - set(known) or set(wanted) - set(WORKLOADS):
        ap.error('unknown peer or workload')
    rig = Rig(a.mib, a.model)
    peers = [known[p](rig) for p in a.peers.split(',')]
    results = {}
    start = time.monotonic()
    for r in range(a.rounds):
        for peer in peers:
            for workload, figure in scenarios(peer, a.model, wanted):
                results.setdefault((peer.name, workload), []).append(figure)
                if a.verbose:
                    print('%6.1f s  %-12s %-9s %10.1f %s' % (time.monotonic() - start, peer.name, workload,
                                                      figure, WORKLOADS[workload]), flush=True)
        print('round %d of %d, %.0f s' % (r + 1, a.rounds, time.monotonic() - start), flush=True)
    print('\n' + table(results, [p.name for p in peers]))
    if a.json:
        with open(a.json, 'w', encoding='ascii') as f:
            json.dump({'kernel': os.uname().release, 'machine': os.uname().machine,
                       'model': a.model, 'rounds': a.rounds, 'mib': a.mib, 'results': summary(results)}, f, indent=1)


main()
