#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Backups of one image by snapbackup, borg, restic and a bare pipe of zstd: one run, the same data, everything on this
# machine, loopback for the network. Ratios of one run are all that means anything.
#
# usage: tests/bench/media.py [--mib N] [--clients N] [--dir D] [--json FILE] [--keep] [--only PEER,...]
#
#   data        a file system with real files (from /usr), N MiB; then 1 % of its 4 KiB blocks
#               changed at random, then 10 %: what is new is made of other blocks of it, so that it compresses as
#               files do, and is found nowhere else
#   snapbackup  full; increments from a list of changes, as the module gives it (in a guest the source is the module; here
#               it is an image and the list is known), and "compared": both images read, where there is no list. To
#               snapmediad over TCP, plain on loopback as the peers' transport is, and once over TLS
#   borg        create --read-special on a fifo of the image, zstd,1, no encryption, local repository
#   restic      backup --stdin, local repository (it always encrypts; compression auto where the version knows it)
#   pipe        zstd -1 | socat TCP | file
#
# Measured by the kernel for the client and everything it starts, and for the server: wall and processor seconds, peak memory of the
# largest process (never less than this script's own, some 15 MiB: the kernel counts from the fork), bytes sent where there is a wire, bytes that the repository grew by. Restores are compared with the
# image. Caches are dropped before each step where that is allowed, and the disk is synced inside of each.

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BLOCK = 4096
UUID = '6d1b3c52-0f7e-4d55-9a0c-51b3f8a2c0ff'
NULL = subprocess.DEVNULL


def sh(argv, **kw):
    return subprocess.run(argv, check=True, stdout=NULL, stderr=NULL, **kw)


def collect_files(src, tree, total):
    """Hard links (or copies) of files of src, until they are total bytes."""
    size = n = 0
    for top, dirs, files in os.walk(src):
        dirs.sort()
        for f in sorted(files):
            path = os.path.join(top, f)
            try:
                st = os.lstat(path)
                if not os.path.isfile(path) or os.path.islink(path) or st.st_size > total // 8:
                    continue
                to = os.path.join(tree, '%d' % (n // 1000))
                os.makedirs(to, exist_ok=True)
                to = os.path.join(to, '%d-%s' % (n, f))
                try:
                    os.link(path, to)
                except OSError:
                    shutil.copyfile(path, to)
            except OSError:
                continue
            n += 1
            size += (st.st_size + BLOCK - 1) // BLOCK * BLOCK
            if size >= total:
                return size
    return size


def make_image(d, mib):
    tree = os.path.join(d, 'tree')
    os.makedirs(tree)
    used = collect_files('/usr', tree, mib * (1 << 20) * 85 // 100)
    image = os.path.join(d, 'g1')
    sh(['mke2fs', '-q', '-t', 'ext4', '-O', '^has_journal', '-E', 'root_owner=0:0,lazy_itable_init=0', '-d', tree, image, '%dM' % mib])
    # Everything allocated: whoever reads it reads it, holes or not
    with open(image, 'r+b') as f:
        os.posix_fallocate(f.fileno(), 0, mib << 20)
    shutil.rmtree(tree)
    return used


def change(d, old, new, share, seed, list_name):
    """A share of the blocks of image old, at random, becomes new; the list of changes."""
    sh(['cp', '--reflink=auto', os.path.join(d, old), os.path.join(d, new)])
    r = random.Random(seed)
    with open(os.path.join(d, new), 'r+b') as f:
        blocks = os.fstat(f.fileno()).st_size // BLOCK
        chosen = sorted(r.sample(range(blocks), int(blocks * share)))
        for b in chosen:
            off = r.randrange(1, BLOCK)
            data = os.pread(f.fileno(), BLOCK, r.randrange(blocks) * BLOCK)
            os.pwrite(f.fileno(), data[off:] + data[:off], b * BLOCK)
        os.fsync(f.fileno())
    with open(os.path.join(d, list_name), 'w') as f:
        start = end = None
        for b in chosen + [None]:
            if b is not None and b == end:
                end += 1
                continue
            if start is not None:
                f.write('%d %d\n' % (start * BLOCK, (end - start) * BLOCK))
            if b is not None:
                start, end = b, b + 1
    return len(chosen) * BLOCK


def du(path):
    total = 0
    for top, _, files in os.walk(path):
        for f in files:
            try:
                total += os.lstat(os.path.join(top, f)).st_blocks * 512
            except OSError:
                pass
    return total


def cpu_of(pid):
    """Processor seconds of a process and of its children that it has waited for."""
    with open('/proc/%d/stat' % pid) as f:
        v = f.read().rsplit(')', 1)[1].split()
    return sum(int(x) for x in v[11:15]) / os.sysconf('SC_CLK_TCK')


def drop_caches():
    subprocess.run(['sync'], check=False)
    try:
        with open('/proc/sys/vm/drop_caches', 'w') as f:
            f.write('1')
    except OSError:
        pass


def loopback_bytes():
    with open('/proc/net/dev') as f:
        for line in f:
            if line.strip().startswith('lo:'):
                return int(line.split(':')[1].split()[0])
    return 0


class Pipe:
    """A server of one connection for the bare pipe."""

    def __init__(self, path):
        self.s = socket.create_server(('127.0.0.1', 0))
        port = self.s.getsockname()[1]
        self.s.close()
        self.port = port
        self.p = subprocess.Popen(['socat', '-u', '-b', '262144', 'TCP-LISTEN:%d,bind=127.0.0.1,reuseaddr' % port,
                                   'CREATE:%s' % path], stdout=NULL)
        for _ in range(100):
            with open('/proc/net/tcp') as f:
                if ':%04X ' % port in f.read():
                    return
            time.sleep(0.02)


class Bench:
    def __init__(self, a):
        self.a, self.d, self.rows = a, a.dir, []
        self.env = dict(os.environ, PATH=os.path.join(REPO, 'build', 'bin') + ':' + os.environ['PATH'],
                        SNAPDIFF_STATE_DIR=self.at('state'), SNAPDIFF_CONFIG_DIR=self.at('etc'), TMPDIR=self.d,
                        BORG_BASE_DIR=self.at('borg-home'), BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK='yes',
                        RESTIC_PASSWORD='x', RESTIC_CACHE_DIR=self.at('restic-cache'))

    def at(self, name):
        return os.path.join(self.d, name)

    def measure(self, peer, step, argv, repo=None, server=None, wire=None, stdin=None, stdout=None, out=None):
        """Run argv (a list, or a shell line), note what it took; with what it wrote (in repo, out) being on the disk."""
        if isinstance(argv, str):
            argv = ['bash', '-c', 'set -o pipefail; ' + argv]
        drop_caches()
        before = du(repo) if repo else 0
        cpu0 = cpu_of(server.pid) if server else 0
        lo0 = loopback_bytes()
        err = open(self.at('stderr'), 'wb')
        t = time.monotonic()
        p = subprocess.Popen(argv, env=self.env, stdin=stdin or NULL, stdout=stdout or NULL, stderr=err, cwd=self.d)
        _, status, u = os.wait4(p.pid, 0)
        if server:          # the session's process has been reaped by its parent
            for _ in range(500):
                if not open('/proc/%d/task/%d/children' % (server.pid, server.pid)).read().split():
                    break
                time.sleep(0.01)
        if repo or out:
            subprocess.run(['sync', '-f', repo or out], check=False)
        wall = time.monotonic() - t
        err.close()
        if status:
            sys.exit('%s %s: failed (%s):\n%s' % (peer, step, ' '.join(argv), open(self.at('stderr')).read()[-2000:]))
        row = {'peer': peer, 'step': step, 'wall_s': round(wall, 3), 'cpu_s': round(u.ru_utime + u.ru_stime, 3),
               'peak_kib': u.ru_maxrss}
        if server:
            row['server_cpu_s'] = round(cpu_of(server.pid) - cpu0, 3)
        if wire:
            row['wire_bytes'] = loopback_bytes() - lo0
        if repo:
            row['stored_bytes'] = du(repo) - before
        self.rows.append(row)
        print('  %-22s %-14s %8.2f s' % (peer, step, wall), flush=True)
        return row

    def same(self, path, gen):
        if subprocess.run(['cmp', '-s', path, self.at(gen)], check=False).returncode:
            sys.exit('%s is not %s' % (path, gen))
        os.unlink(path)

    # ---- snapbackup ----

    def serve(self, repo, tls=False):
        pin = None
        if tls:
            pin = subprocess.run(['snapmediad', 'init', repo], env=self.env, check=True, capture_output=True, text=True).stdout.strip()
        elif not os.path.exists(repo):
            sh(['snapmedia', 'init', repo], env=self.env)
        p = subprocess.Popen(['snapmediad', repo, '--listen', '127.0.0.1:0', '--foreground'], env=self.env, stdout=subprocess.PIPE,
                             stderr=open(self.at('server.log'), 'ab'), text=True)
        dest = '127.0.0.1:' + p.stdout.readline().split('port ')[1].strip()
        if tls:
            out = subprocess.run(['snapbackup', 'enroll', dest, '--pin', pin], env=self.env, check=True, capture_output=True, text=True).stdout
            mine = out.split('--pin ')[1].split()[0]
            sh(['snapmedia', 'client', 'add', 'bench', '--pin', mine, '--role', 'backup,restore', '--repo', repo], env=self.env)
        return p, dest

    def back(self, dest, gen, base=None, changes=None, image=None, uuid=UUID):
        argv = ['snapbackup', '--image', image or self.at('g%d' % gen), '--uuid', uuid, '--volume-name', 'disk', '--gen', str(gen),
                '--dest', dest, '-q']
        if base:
            argv += ['--base', str(base), '--base-image', self.at('g%d' % base)]
        if changes:
            argv += ['--changes', self.at(changes)]
        return argv

    def session_peak(self):
        import re
        with open(self.at('server.log')) as f:
            return max([int(x) for x in re.findall(r'peak_kib=(\d+)', f.read())] or [0])

    def ours(self, name, tls):
        repo = self.at('repo-' + name)
        server, dest = self.serve(repo, tls)
        go = lambda step, argv, **kw: self.measure(name, step, argv, repo=repo, server=server, wire=True, **kw)
        go('full', self.back(dest, 1))
        go('1%', self.back(dest, 2, 1, 'list2'))
        go('10%', self.back(dest, 3, 2, 'list3'))
        if not tls:
            os.rename(self.at('g3'), self.at('g4'))     # the same again, without a list, as another generation
            go('10% compared', self.back(dest, 4, 2))
            os.rename(self.at('g4'), self.at('g3'))
        for gen, step in ((1, 'restore full'), (3, 'restore last')):
            self.measure(name, step, ['snaprestore', '--from', dest, '--volume', 'disk', '--gen', str(gen), '--to', self.at('back'), '-q'],
                         server=server, wire=True, out=self.at('back'))
            self.same(self.at('back'), 'g%d' % gen)
        self.measure(name, 'verify', ['snapmedia', 'verify', repo])
        server.terminate()
        server.wait()
        self.rows.append({'peer': name, 'step': 'server', 'peak_kib': self.session_peak()})
        shutil.rmtree(repo)

    # ---- peers ----

    def borg(self):
        repo = self.at('repo-borg')
        sh(['borg', 'init', '-e', 'none', repo], env=self.env)
        fifo = self.at('disk')
        os.mkfifo(fifo)
        for gen, step in ((1, 'full'), (2, '1%'), (3, '10%')):
            self.measure('borg', step, 'cat g%d >disk & borg create --read-special -C zstd,1 %s::g%d disk && wait' % (gen, repo, gen), repo=repo)
        for gen, step in ((1, 'restore full'), (3, 'restore last')):
            self.measure('borg', step, 'borg extract --stdout %s::g%d >back' % (repo, gen), out=self.at('back'))
            self.same(self.at('back'), 'g%d' % gen)
        self.measure('borg', 'verify', ['borg', 'check', '--verify-data', repo])
        shutil.rmtree(repo)

    def restic(self):
        repo = self.at('repo-restic')
        sh(['restic', 'init', '-r', repo], env=self.env)
        ids = {}
        for gen, step in ((1, 'full'), (2, '1%'), (3, '10%')):
            self.measure('restic', step, 'restic -r %s backup --stdin --stdin-filename disk --tag g%d <g%d' % (repo, gen, gen), repo=repo)
            out = subprocess.run(['restic', '-r', repo, 'snapshots', '--json', '--tag', 'g%d' % gen], env=self.env, check=True, capture_output=True).stdout
            ids[gen] = json.loads(out)[-1]['id']
        for gen, step in ((1, 'restore full'), (3, 'restore last')):
            self.measure('restic', step, 'restic -r %s dump %s /disk >back' % (repo, ids[gen]), out=self.at('back'))
            self.same(self.at('back'), 'g%d' % gen)
        self.measure('restic', 'verify', ['restic', '-r', repo, 'check', '--read-data'])
        shutil.rmtree(repo)

    def pipe(self):
        out = self.at('repo-pipe')
        os.makedirs(out)
        for gen, step in ((1, 'full'), (2, '1%'), (3, '10%')):
            s = Pipe(os.path.join(out, 'g%d.zst' % gen))
            self.measure('pipe', step, 'zstd -1 -T%d -q -c g%d | socat -u -b 262144 - TCP:127.0.0.1:%d' % (os.cpu_count(), gen, s.port),
                         repo=out, server=s.p if s.p.poll() is None else None, wire=True)
            s.p.wait()
        for gen, step in ((1, 'restore full'), (3, 'restore last')):
            self.measure('pipe', step, 'zstd -d -q -c repo-pipe/g%d.zst >back' % gen, out=self.at('back'))
            self.same(self.at('back'), 'g%d' % gen)
        self.measure('pipe', 'verify', 'zstd -t -q repo-pipe/*.zst')
        shutil.rmtree(out)

    # ---- many at once ----

    def many(self, clients):
        """The same bytes by one client and by many at once, as many volumes: how much of the machine is left on the way."""
        size = min(64 << 20, os.path.getsize(self.at('g1')) // clients // BLOCK * BLOCK)
        for i in range(clients):
            sh(['dd', 'if=' + self.at('g1'), 'of=' + self.at('part%d' % i), 'bs=%d' % size, 'skip=%d' % i, 'count=1'])
        uuids = ['6d1b3c52-0f7e-4d55-9a0c-%012d' % i for i in range(clients)]
        took = {}
        for how in ('after another', 'at once'):
            repo = self.at('repo-many')
            server, dest = self.serve(repo)
            drop_caches()
            for i in range(clients):        # in memory: the disk is not what is shared out here
                sh(['cat', self.at('part%d' % i)])
            t, cpu0 = time.monotonic(), cpu_of(server.pid)
            running = []
            for i in range(clients):
                p = subprocess.Popen(self.back(dest, 1, image=self.at('part%d' % i), uuid=uuids[i]), env=self.env, stdout=NULL)
                if how == 'at once':
                    running.append(p)
                elif p.wait():
                    sys.exit('a client failed')
            if any(p.wait() for p in running):
                sys.exit('a client failed')
            subprocess.run(['sync', '-f', repo], check=False)
            took[how] = time.monotonic() - t
            self.rows.append({'peer': 'snapbackup', 'step': '%d clients %s' % (clients, how), 'wall_s': round(took[how], 3),
                              'server_cpu_s': round(cpu_of(server.pid) - cpu0, 3), 'bytes': size * clients})
            server.terminate()
            server.wait()
            shutil.rmtree(repo)
        for i in range(clients):
            os.unlink(self.at('part%d' % i))
        return took['after another'] / took['at once']


def number(v, unit=1 << 20):
    return '%.1f' % (v / unit) if v is not None else '-'


def table(rows):
    cols = ('peer', 'step', 'wall s', 'cpu s', 'server cpu', 'wire MiB', 'stored MiB', 'peak MiB')
    out = [cols]
    for r in rows:
        f = lambda k: '%.2f' % r[k] if k in r else '-'
        out.append((r['peer'], r['step'], f('wall_s'), f('cpu_s'), f('server_cpu_s'), number(r.get('wire_bytes')),
                    number(r.get('stored_bytes')), number(r.get('peak_kib'), 1024)))
    width = [max(len(r[i]) for r in out) for i in range(len(cols))]
    for r in out:
        print('  '.join((c.ljust if i < 2 else c.rjust)(width[i]) for i, c in enumerate(r)))


def targets(b, many, changed):
    """The issue's targets, from this run. Return: {name: (value, target, met)}"""
    at = {(r['peer'], r['step']): r for r in b.rows}
    wall = lambda p, s: at.get((p, s), {}).get('wall_s')
    best = lambda s: min([wall(p, s) for p in ('borg', 'restic') if wall(p, s)] or [0])
    res = {}

    def put(name, value, target, low=True):
        if value:
            res[name] = {'value': round(value, 3), 'target': target, 'met': value >= target if low else value <= target}

    us = 'snapbackup'
    def cpu(p, s):
        r = at.get((p, s), {})
        return r.get('cpu_s', 0) + r.get('server_cpu_s', 0)

    # Processor seconds of all processes together: what a wall clock says on a machine that is busy otherwise depends on that
    for s in ('full', '1%', '10%', 'restore full', 'restore last'):
        mine, peers = cpu(us, s), [cpu(p, s) for p in ('borg', 'restic') if cpu(p, s)]
        if mine and peers:
            put('%s: processor time of the better of borg and restic to ours' % s, min(peers) / mine, 1)
        if mine and cpu('pipe', s):
            put('%s: processor time of the pipe to ours' % s, cpu('pipe', s) / mine, 0)
    if wall(us, 'full'):
        put('full: times as fast as the better of borg and restic', best('full') / wall(us, 'full'), 2)
        if wall('pipe', 'full'):
            put('full: speed of the pipe', wall('pipe', 'full') / wall(us, 'full'), 0.85)
        put('1%: times as fast', best('1%') / wall(us, '1%'), 20)
        put('10%: times as fast', best('10%') / wall(us, '10%'), 1)
        put('restore full: times as fast', best('restore full') / wall(us, 'restore full'), 2)
        put('restore last: times as fast', best('restore last') / wall(us, 'restore last'), 2)
        for step, key in (('1%', 'list2'), ('10%', 'list3')):
            put('%s: bytes stored to changed extents compressed alone' % step, at[us, step]['stored_bytes'] / changed[key], 1.06, False)
        put('peak MiB of a client', max(r.get('peak_kib', 0) for r in b.rows if r['peer'].startswith(us) and r['step'] != 'server') / 1024, 128, False)
        put('peak MiB of a session', max(r['peak_kib'] for r in b.rows if r['step'] == 'server') / 1024, 128, False)
    if many:
        put('many clients at once to one after another', many, 0.8)
    return res


def compressed(d, image, changes):
    """zstd -1 of the changed extents alone, in pieces of 256 KiB as they are sent: what an increment has to cost."""
    buf, n_pieces = b'', 0
    os.makedirs(os.path.join(d, 'pieces'))

    def put(data):
        with open(os.path.join(d, 'pieces', '%06d' % n_pieces), 'wb') as o:
            o.write(data)

    with open(os.path.join(d, image), 'rb') as f, open(os.path.join(d, changes)) as c:
        for line in c:
            at, n = map(int, line.split())
            buf += os.pread(f.fileno(), n, at)
            while len(buf) >= 256 << 10:
                put(buf[:256 << 10])
                n_pieces += 1
                buf = buf[256 << 10:]
        put(buf)
    sh('zstd -1 -q --rm pieces/*', shell=True, cwd=d)
    total = sum(os.path.getsize(os.path.join(d, 'pieces', f)) for f in os.listdir(os.path.join(d, 'pieces')))
    shutil.rmtree(os.path.join(d, 'pieces'))
    return total


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--mib', type=int, default=2048)
    p.add_argument('--clients', type=int, default=16)
    p.add_argument('--dir', default=os.path.join(REPO, 'build', 'bench', 'media'))
    p.add_argument('--json', default=os.path.join(REPO, 'build', 'bench', 'media.json'))
    p.add_argument('--only', default='snapbackup,tls,borg,restic,pipe,many')
    p.add_argument('--keep', action='store_true')
    a = p.parse_args()
    only = a.only.split(',')
    if os.path.exists(a.dir):
        shutil.rmtree(a.dir)
    os.makedirs(a.dir)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    b = Bench(a)
    try:
        print('image: %d MiB, %d MiB of files' % (a.mib, make_image(a.dir, a.mib) >> 20))
        print('changes: %d and %d MiB' % (change(a.dir, 'g1', 'g2', 0.01, 1, 'list2') >> 20, change(a.dir, 'g2', 'g3', 0.10, 2, 'list3') >> 20))
        changed = {k: compressed(a.dir, g, k) for g, k in (('g2', 'list2'), ('g3', 'list3'))}
        if 'snapbackup' in only:
            b.ours('snapbackup', False)
        if 'tls' in only:
            b.ours('snapbackup-tls', True)
        for name in ('pipe', 'borg', 'restic'):
            if name in only:
                getattr(b, name)()
        many = b.many(a.clients) if 'many' in only else None
        print()
        table(b.rows)
        print()
        res = targets(b, many, changed)
        for name, t in res.items():
            print('%-62s %8.2f  target %-5s %s' % (name, t['value'], t['target'], 'met' if t['met'] else 'NOT MET'))
        with open(a.json, 'w') as f:
            json.dump({'mib': a.mib, 'cpus': os.cpu_count(), 'changed_compressed': changed, 'rows': b.rows, 'targets': res}, f, indent=1)
        print('\n%s' % a.json)
    finally:
        if not a.keep:
            shutil.rmtree(a.dir, ignore_errors=True)


if __name__ == '__main__':
    main()
