# SPDX-License-Identifier: GPL-2.0-or-later
#
# What is measured. A scenario is one life of a peer: made with so many snapshots, then
# steps one after the other, then taken down. A step yields (workload, figure) pairs.
#
# Workloads (a number behind a name: snapshots; for snapdiff: generations):
#   none        random 4 KiB writes at depth 256, attached but without any snapshot
#   first       the same with one snapshot, each block for the first time
#   again       the same blocks once more
#   first4 ...  first with 4, 16, 64 or 1000; peers that copy for each snapshot stop at 4
#   d1, d32     first at depth 1 and 32
#   mixed       70 % reads, depth 32, half of the blocks
#   seqfirst    1 MiB sequential first writes, one snapshot
#   vsame       1 MiB sequential reads of the snapshot, nothing changed since
#   vchanged    the same with every block changed since, in random order; vrandom: 4 KiB random reads of it
#   vseq        the same with every block changed since, in order
#   vhalf       the same with every second block changed, at random places; vhalfrand: 4 KiB random reads
#   one         us for a lone 4 KiB first write; oneagain: for a lone rewrite
#   sync        one with a flush behind each; syncagain: blocks already preserved
#   fsfirst     ext4, 4 KiB writes into a file, fsync after each, all blocks for the first time; fsagain: preserved before
#   sqlfirst    ext4, SQLite commits (WAL, synchronous=FULL, 4 rows of 20,000 each); sqlagain
#   walone      first writes, half of the blocks; wread: the other half while the snapshot is read from end to end, 256 MiB/s;
#               wbackup: while snapbackup makes a stream of it (snapdiff only)
#   tail50 ...  a lone writer with a flush behind each write, beside a flood of first writes at depth 256: us, median, 99 % and
#               the longest; tailover: writes of the flood for one of his (a count: hardly depends on how busy the machine is)
#   *.cpu       processor time of the kernel, us for each request of that workload; fio's system calls and its start are in it,
#               so what is added to dm-linear's is the difference
#   *.group     copies in one commit group

import json
import os
import random
import sys
import time

from peers import Linear, Raw, Snapdiff, has_sqlite
from rig import Busy, fio, fio_command, fio_jobs, job_figure, sh

DEEP = ['--iodepth=256', '--iodepth_batch_submit=128', '--iodepth_batch_complete_min=64', '--iodepth_batch_complete_max=256']
RANDOM = ['--rw=randwrite', '--bs=4k'] + DEEP
DEPTH32 = ['--rw=randwrite', '--bs=4k', '--iodepth=32', '--iodepth_batch_submit=16', '--iodepth_batch_complete_min=8']
SEQUENTIAL = ['--rw=write', '--bs=1M', '--iodepth=16']
READ = ['--rw=read', '--bs=1M', '--iodepth=16']
ONE = ['--rw=randwrite', '--bs=4k', '--iodepth=1', '--size=8M']
MIXED = ['--rw=randrw', '--rwmixread=70', '--bs=4k', '--iodepth=32', '--iodepth_batch_submit=16', '--iodepth_batch_complete_min=8',
         '--io_size=50%']
RANDREAD = ['--rw=randread', '--bs=4k'] + DEEP
HALF = ['--rw=randwrite', '--bs=4k', '--io_size=50%'] + DEEP
FEW = RANDOM + ['--size=64M']

UNITS = {'seqfirst': 'MB/s', 'vsame': 'MB/s', 'vchanged': 'MB/s', 'vseq': 'MB/s', 'vhalf': 'MB/s',
         'one': 'us', 'oneagain': 'us', 'sync': 'us', 'syncagain': 'us',
         'fsfirst': 'per s', 'fsagain': 'per s', 'sqlfirst': 'per s', 'sqlagain': 'per s',
         'tail50': 'us', 'tail99': 'us', 'tailmax': 'us', 'tailover': 'writes'}


def unit(workload):
    name, _, kind = workload.partition('.')
    return {'cpu': 'us', 'group': 'copies'}[kind] if kind else UNITS.get(name, 'k IOPS')


# ---- steps: functions of a peer that is up ------------------------------------------------------------------

class Run:
    """One fio. @covers: it writes every block (True), some (None), or none of them (False)."""

    def __init__(self, workload, args, device='dev', covers=None, cpu=False):
        self.names, self.args, self.device, self.covers, self.cpu = [workload], args, device, covers, cpu

    def __call__(self, peer):
        name, meter = self.names[0], peer.rig.cpu
        counts = counters(peer) if self.cpu else None
        before = meter.now() if self.cpu else None
        job = fio_jobs(fio_command(getattr(peer, self.device), self.args))[0]
        after = meter.now() if before is not None else None
        yield name, job_figure(job, unit(name))
        if after is not None:
            requests = job['read']['total_ios'] + job['write']['total_ios']
            yield name + '.cpu', (after - before) / requests
        if counts:
            yield from counted(name, counts, counters(peer))


def counters(peer):
    return json.loads(sh('snapctl', 'status', 'b', '--json'))['volumes'][0] if isinstance(peer, Snapdiff) else None


def counted(name, before, after):
    groups = after['groups'] - before['groups']
    if groups:
        yield name + '.group', (after['chunks_copied'] - before['chunks_copied']) / groups


class Tail:
    """The flood has three quarters of the device, the lone writer the last one."""
    names = ['tail50', 'tail99', 'tailmax', 'tailover']
    covers = None

    def __call__(self, peer):
        mib = peer.rig.mib
        flood = ['--name=flood', '--rw=randwrite', '--bs=4k', '--offset=0', '--size=%dM' % (mib // 4 * 3), *DEEP]
        if type(peer) in (Linear, Raw):
            flood.append('--loops=3')
        cmd = ['fio', '--output-format=json', '--thread', '--randrepeat=0', '--norandommap=0', '--exitall', '--direct=1',
               '--filename=' + peer.dev, *flood, '--ioengine=libaio', '--gtod_reduce=1',
               '--name=lone', '--filename=' + peer.dev, '--offset=%dM' % (mib // 4 * 3), '--size=%dM' % (mib // 4), '--rw=randwrite', '--bs=4k',
               '--ioengine=psync', '--sync=dsync', '--iodepth=1', '--gtod_reduce=0']
        jobs = {j['jobname']: j['write'] for j in fio_jobs(cmd)}
        lone = jobs['lone']
        ns = lone['clat_ns']
        yield 'tail50', ns['percentile']['50.000000'] / 1e3
        yield 'tail99', ns['percentile']['99.000000'] / 1e3
        yield 'tailmax', ns['max'] / 1e3
        yield 'tailover', jobs['flood']['total_ios'] / lone['total_ios']


class Beside:
    """First writes at depth @depth without and with a reader of the snapshot; without one the device itself is read."""
    covers = None

    def __init__(self, depth, size, backup):
        self.depth, self.size = depth, size
        self.names = ['walone', 'wread'] + (['wbackup'] if backup else [])

    def write(self, peer, part):
        size = min(self.size, peer.rig.mib // 4)
        return fio(peer.dev, ['--rw=randwrite', '--bs=4k', '--iodepth=%d' % self.depth, '--offset=%dM' % (part * size), '--size=%dM' % size], 'k IOPS')

    def beside(self, peer, part, cmd, name):
        busy = Busy(cmd)
        try:
            time.sleep(0.1)
            figure = self.write(peer, part)
            if not busy.running():
                sys.exit('bench: %s: what should have read all the time has ended: %s' % (name, busy.p.communicate()[1]))
            return figure
        finally:
            busy.stop()

    def __call__(self, peer):
        yield 'walone', self.write(peer, 0)
        reader = fio_command(peer.snap, READ + ['--rate=256m', '--time_based', '--runtime=600'])
        yield 'wread', self.beside(peer, 1, reader, 'wread')
        if 'wbackup' in self.names and isinstance(peer, Snapdiff):
            loop = 'while snapbackup b --gen 1 --base none --dest - -q; do :; done >/dev/null'
            yield 'wbackup', self.beside(peer, 2, ['sh', '-c', loop], 'wbackup')


# ---- a filesystem --------------------------------------------------------------------------------------------

MNT = '/tmp/bench-mnt'
ROWS, SET = 20000, 4


def make_fs(dev):
    sh('mkfs.ext4', '-q', '-F', '-J', 'size=4', '-E', 'lazy_itable_init=0,lazy_journal_init=0,nodiscard', dev)
    os.makedirs(MNT, exist_ok=True)
    sh('mount', '-t', 'ext4', dev, MNT)
    with open(MNT + '/file', 'wb') as f:
        for _ in range(32):
            f.write(os.urandom(1 << 20))
    if has_sqlite():
        import sqlite3  # pylint: disable=import-outside-toplevel
        db = sqlite3.connect(MNT + '/db', isolation_level=None)
        db.execute('pragma journal_mode=wal')
        db.execute('create table t (id integer primary key, n integer, text blob)')
        db.execute('begin')
        db.executemany('insert into t values (?, 0, ?)', ((i, os.urandom(200)) for i in range(ROWS)))
        db.execute('commit')
        db.close()
    sh('umount', MNT)


def commits(number):
    """Commits per second; the same rows for every peer."""
    import sqlite3  # pylint: disable=import-outside-toplevel
    db = sqlite3.connect(MNT + '/db', isolation_level=None)
    db.execute('pragma journal_mode=wal')
    db.execute('pragma synchronous=full')
    which = random.Random(number)
    start = time.monotonic()
    for _ in range(number):
        db.execute('begin immediate')
        for _ in range(SET):
            db.execute('update t set n = n + 1, text = randomblob(200) where id = ?', (which.randrange(ROWS),))
        db.execute('commit')
    took = time.monotonic() - start
    db.close()
    return number / took


class Filesystem:
    """@again: every block of the device has been rewritten since the snapshot, so that nothing is touched for the first time."""
    covers = None

    def __init__(self, again, writes, transactions):
        self.end = 'again' if again else 'first'
        self.again, self.writes, self.transactions = again, writes, transactions
        self.names = ['fs' + self.end, 'sql' + self.end]

    def __call__(self, peer):
        if self.again:
            sh('dd', 'if=' + peer.dev, 'of=' + peer.dev, 'bs=1M', 'iflag=direct', 'oflag=direct', 'conv=notrunc', 'status=none')
        sh('mount', '-t', 'ext4', peer.dev, MNT)
        try:
            yield 'fs' + self.end, 1e3 * fio(MNT + '/file', ['--rw=randwrite', '--bs=4k', '--size=32M', '--io_size=%dK' % (4 * self.writes), '--fsync=1',
                                                             '--ioengine=psync', '--direct=0', '--overwrite=1'], 'k IOPS')
            if has_sqlite():
                yield 'sql' + self.end, commits(self.transactions)
        finally:
            sh('umount', MNT)


# ---- scenarios ------------------------------------------------------------------------------------------------

class Scenario:
    def __init__(self, snapshots, *steps):
        self.snapshots, self.steps = snapshots, steps
        self.fs = any(isinstance(s, Filesystem) for s in steps)

    def names(self):
        return [n for s in self.steps for n in s.names]

    def takes(self, peer):
        return self.snapshots <= peer.most

    def run(self, peer, wanted):
        # What came before is part of what a step measures.
        last = max((i for i, s in enumerate(self.steps) if set(s.names) & set(wanted)), default=None)
        if last is None or not self.takes(peer):
            return
        steps = self.steps[:last + 1]
        peer.up(self.snapshots, make_fs if self.fs else lambda dev: None)
        try:
            for step in steps:
                yield from step(peer)
            covers = [s.covers for s in steps if s.covers is not False]
            peer.check(False if not self.snapshots or not covers else True if True in covers else None)
        finally:
            peer.down()
        if self.fs:
            peer.refill()


def memory():
    return [
        Scenario(0, Run('none', RANDOM, covers=True, cpu=True)),
        Scenario(1, Run('vsame', READ, 'snap', covers=False), Run('first', RANDOM, covers=True, cpu=True), Run('again', RANDOM, covers=True, cpu=True),
                 Run('vchanged', READ, 'snap', covers=False), Run('vrandom', RANDREAD, 'snap', covers=False)),
        Scenario(1, Run('seqfirst', SEQUENTIAL, covers=True), Run('vseq', READ, 'snap', covers=False)),
        Scenario(4, Run('first4', RANDOM, covers=True), Run('again4', RANDOM, covers=True)),
        Scenario(1000, Run('first1000', RANDOM, covers=True)),
        Scenario(1, Filesystem(False, 1000, 500)),
        Scenario(1, Filesystem(True, 1000, 500)),
        Scenario(1, Run('half', HALF), Run('vhalf', READ, 'snap', covers=False), Run('vhalfrand', RANDREAD, 'snap', covers=False)),
        Scenario(1, Run('mixed', MIXED)),
        Scenario(1, Run('d1', ONE[:3] + ['--size=32M'])),
        Scenario(1, Run('d32', DEPTH32, covers=True)),
        Scenario(16, Run('first16', RANDOM, covers=True)),
        Scenario(64, Run('first64', RANDOM, covers=True)),
        Scenario(1, Beside(32, 32, True)),
        Scenario(1, Tail()),
    ]


def latency():
    return [
        Scenario(1, Run('one', ONE), Run('oneagain', ONE)),
        Scenario(1, Run('d32', DEPTH32 + ['--size=64M'])),
        Scenario(1, Run('first', FEW), Run('again', FEW)),
        Scenario(1, Beside(4, 16, True)),
        Scenario(1, Tail()),
    ]


def cache():
    return [
        Scenario(1, Run('one', ONE), Run('oneagain', ONE)),
        Scenario(1, Run('sync', ONE + ['--fsync=1']), Run('syncagain', ONE + ['--fsync=1'])),
        Scenario(1, Filesystem(False, 500, 300)),
        Scenario(1, Filesystem(True, 500, 300)),
        Scenario(1, Tail()),
    ]


SCENARIOS = {'memory': memory(), 'latency': latency(), 'cache': cache()}

# What the targets need, and no more.
QUICK = {
    'memory': ['none', 'first', 'again', 'vsame', 'seqfirst', 'vseq', 'first4', 'first1000', 'fsfirst', 'sqlfirst', 'fsagain', 'sqlagain'],
    'latency': ['one', 'walone', 'wread', 'tail99'],
    'cache': ['one', 'fsfirst', 'sqlfirst', 'fsagain', 'sqlagain'],
}


def every(model):
    return [n for s in SCENARIOS[model] for n in s.names()]
