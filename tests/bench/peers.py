# SPDX-License-Identifier: GPL-2.0-or-later
#
# The peers, each set up the best way its manual knows, on the same devices.

import json
import os
import sys

from rig import Dm, Genl, fill, fio, sectors, sh

FILL = ['--rw=write', '--bs=1M', '--iodepth=16']


class Linear:
    """up() makes self.dev, what is written to, and self.snap, the oldest snapshot (None: there is none)."""
    name = 'dm-linear'
    most = 1            # snapshots that it takes part with; it has none

    def __init__(self, rig):
        self.rig, self.dm = rig, Dm()
        self.dev = self.snap = None

    def up(self, snapshots, prepare=lambda dev: None):
        p = self.rig.primary
        self.dev = self.snap = self.dm.make('b-lin', '0 %d linear %s 0' % (sectors(p), p))
        prepare(self.dev)

    def check(self, copied):
        """A snapshot that was lost on the way would make a fine figure. @copied: every block (True), none, or some (None)."""

    def down(self):
        self.dm.clear()

    def refill(self):
        """What a filesystem left is zero here and there: not for those who measure copies."""
        fill(self.rig.primary)


class Raw(Linear):
    name = 'raw'

    def up(self, snapshots, prepare=lambda dev: None):
        self.dev = self.snap = self.rig.primary
        prepare(self.dev)


class Snapdiff(Linear):
    name = 'snapdiff'
    most = 1000
    made = 0

    def up(self, snapshots, prepare=lambda dev: None):
        sh('snapctl', 'format', '--force', self.rig.cow[0])
        self.dev = sh('snapctl', 'attach', 'b', self.rig.primary, self.rig.cow[0])
        prepare(self.dev)
        self.made = snapshots
        if snapshots:
            netlink = Genl()
            for _ in range(snapshots):
                netlink.create('b')
        self.snap = sh('snapctl', 'activate', 'b@1') if snapshots else None

    def check(self, copied):
        if self.made != len(sh('snapctl', 'list', 'b', '-n', '-o', 'state').splitlines()):
            sys.exit('bench: generations are missing')
        v = json.loads(sh('snapctl', 'status', 'b', '--json'))['volumes'][0]
        chunks = sectors(self.rig.primary) * 512 // v['chunk_size']
        wrong = copied is not None and v['chunks_copied'] != (chunks if copied else 0)
        if v['lost'] or v['state'] != 'rw' or wrong:
            sys.exit('bench: snapdiff did not do its work: %s' % v)

    def down(self):
        sh('snapctl', 'detach', 'b')


class Snapshot(Linear):
    """dm-snapshot with its exception store on a device of its own, one for each snapshot."""
    name = 'dm-snapshot'
    most = 4
    store, chunk = 'P', 8

    def up(self, snapshots, prepare=lambda dev: None):
        p = self.rig.primary
        n = sectors(p)
        prepare(p)
        self.snap = None
        for i in range(snapshots):
            with open(self.rig.cow[i], 'r+b', buffering=0) as f:
                f.write(bytes(4096))
            sh('blockdev', '--flushbufs', self.rig.cow[i])
        # The origin last: when it is resumed it learns the chunk size to split bios by.
        for i in range(snapshots):
            snap = self.dm.make('b-snap%d' % i, '0 %d snapshot %s %s %s %d' % (n, p, self.rig.cow[i], self.store, self.chunk))
            self.snap = self.snap or snap
        self.dev = self.dm.make('b-org', '0 %d snapshot-origin %s' % (n, p))

    def check(self, copied):
        for name in self.dm.names[:-1]:
            used = sh('dmsetup', 'status', name).split()[3]
            done = used[0].isdigit() and int(used.split('/')[0]) >= sectors(self.rig.primary)
            if not used[0].isdigit() or copied and not done:
                sys.exit('bench: %s did not do its work: %s' % (name, used))


class Snapshot16(Snapshot):
    name = 'dm-snap-16K'
    most = 1
    chunk = 32


class SnapshotTransient(Snapshot):
    name = 'dm-snap-N'
    most = 1
    store = 'N'


class SnapshotTransient16(Snapshot):
    name = 'dm-snap-N16K'
    most = 1
    store, chunk = 'N', 32


class Thin(Linear):
    """dm-thin, 64 KiB blocks, the volume fully provisioned before the snapshot."""
    name = 'dm-thin'
    most = 4

    def up(self, snapshots, prepare=lambda dev: None):
        meta, data = self.rig.thin
        n = sectors(self.rig.primary)
        with open(meta, 'r+b', buffering=0) as f:
            f.write(bytes(1 << 20))
        sh('blockdev', '--flushbufs', meta)
        pool = self.dm.make('b-pool', '0 %d thin-pool %s %s 128 0 1 skip_block_zeroing' % (sectors(data), meta, data))
        sh('dmsetup', 'message', pool, '0', 'create_thin 0')
        self.dev = self.dm.make('b-thin', '0 %d thin %s 0' % (n, pool))
        fio(self.dev, FILL, 'MB/s')
        prepare(self.dev)
        self.snap = None
        for i in range(snapshots):
            sh('dmsetup', 'suspend', 'b-thin')
            sh('dmsetup', 'message', pool, '0', 'create_snap %d 0' % (i + 1))
            sh('dmsetup', 'resume', 'b-thin')
        if snapshots:
            self.snap = self.dm.make('b-tsnap', '0 %d thin %s 1' % (n, pool))

    def refill(self):
        """The pool is made anew each time, and filled then."""


PEERS = {c.name: c for c in (Raw, Linear, Snapdiff, Snapshot, SnapshotTransient, Snapshot16, SnapshotTransient16, Thin)}
MAIN = ['raw', 'dm-linear', 'snapdiff', 'dm-snapshot', 'dm-thin']


def has_sqlite():
    try:
        import sqlite3  # pylint: disable=import-outside-toplevel,unused-import
    except ImportError:
        return False
    return os.path.exists('/sbin/mkfs.ext4')
