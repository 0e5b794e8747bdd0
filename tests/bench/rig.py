# SPDX-License-Identifier: GPL-2.0-or-later
#
# What the measurements stand on: null_blk devices, dm devices, fio, processor time.
# Runs as root inside a guest.

import errno
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time

NULLB = '/sys/kernel/config/nullb'

# Device models: what null_blk is told. The model "cache" has request queues: without
# them null_blk takes a flush for a write of nothing and keeps its cache.
MODELS = {
    'memory': (('queue_mode', 0),),
    'latency': (('queue_mode', 0), ('irqmode', 2), ('completion_nsec', 100000)),
    'cache': (('queue_mode', 2), ('irqmode', 2), ('completion_nsec', 100000), ('cache_size', 64)),
}


def sh(*cmd, text=None):
    return subprocess.run(cmd, check=True, input=text, text=True, stdout=subprocess.PIPE).stdout.strip()


def put(path, value):
    with open(path, 'w', encoding='ascii') as f:
        f.write(str(value))


def null_blk(name, mib, model):
    d = os.path.join(NULLB, name)
    os.mkdir(d)
    for key, value in (('size', mib), ('memory_backed', 1), ('blocksize', 4096), ('discard', 0), *model, ('power', 1)):
        try:
            put(os.path.join(d, key), value)
        except OSError:
            if key != 'queue_mode':     # newer kernels have request queues only
                raise
    return '/dev/' + name


def null_gone(dev):
    d = os.path.join(NULLB, os.path.basename(dev))
    put(os.path.join(d, 'power'), 0)
    os.rmdir(d)


def fill(dev):
    """Every page, with bytes that are neither zero nor alike."""
    block = os.urandom(1 << 20)
    with open(dev, 'wb', buffering=0) as f:
        try:
            while f.write(block):
                pass
        except OSError as e:
            if e.errno != errno.ENOSPC:
                raise
        os.fsync(f.fileno())


def sectors(dev):
    return int(sh('blockdev', '--getsz', dev))


FIO = ['fio', '--name=x', '--ioengine=libaio', '--direct=1', '--gtod_reduce=1', '--thread',
       '--output-format=json', '--randrepeat=0', '--norandommap=0']


def fio_command(dev, args):
    return FIO + ['--filename=' + dev, *args]


def fio_jobs(cmd):
    jobs = json.loads(sh(*cmd))['jobs']
    for job in jobs:
        if job['error']:
            sys.exit('bench: fio failed: ' + ' '.join(cmd))
    return jobs


def job_figure(job, unit):
    """k IOPS, MB/s, or us for each request."""
    done = [job[k] for k in ('read', 'write') if job[k]['total_ios']]
    if not done:
        sys.exit('bench: fio did nothing')
    if unit == 'us':
        return sum(d['runtime'] for d in done) * 1e3 / sum(d['total_ios'] for d in done)
    return sum(d['iops'] for d in done) / 1e3 if unit == 'k IOPS' else sum(d['bw_bytes'] for d in done) / 1e6


def fio(dev, args, unit):
    """Once over the whole device, or over --size of it."""
    return job_figure(fio_jobs(fio_command(dev, args))[0], unit)


class Busy:
    """A command that runs beside what is measured, until it is told to stop."""

    def __init__(self, cmd):
        # pylint: disable=consider-using-with
        self.p = subprocess.Popen(cmd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                  start_new_session=True)

    def running(self):
        return self.p.poll() is None

    def stop(self):
        try:
            os.killpg(self.p.pid, signal.SIGTERM)
        except ProcessLookupError:
            return
        self.p.communicate()


class Cpu:
    """
    Processor time of the guest's kernel, in us. Only the host knows it (scripts/bench
    starts tests/bench/cpu.py there): a question is a file, the answer another one.
    """

    def __init__(self, folder):
        self.dir, self.n = folder, 0
        self.works = folder and os.path.isdir(folder)

    def now(self):
        if not self.works:
            return None
        self.n += 1
        path = os.path.join(self.dir, 'answer%d' % self.n)
        put(os.path.join(self.dir, 'ask%d' % self.n), '')
        end = time.monotonic() + 5
        while time.monotonic() < end:
            if os.path.exists(path):
                with open(path, encoding='ascii') as f:
                    return float(f.read())
            time.sleep(0.005)
        self.works = False
        print('bench: nobody tells the processor time', flush=True)
        return None


class Genl:
    """Just enough of generic netlink to cut a volume 1000 times without starting 1000 programs."""
    GETFAMILY, A_FAMILY_ID, A_FAMILY_NAME = 3, 1, 2
    GEN_CREATE, A_VOLUME = 3, 2         # module/uapi/linux/snapdiff.h

    def __init__(self):
        self.sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_GENERIC if hasattr(socket, 'NETLINK_GENERIC') else 16)
        self.sock.bind((0, 0))
        reply = self.call(16, self.GETFAMILY, self.A_FAMILY_NAME, 'snapdiff')
        at = 0
        while at < len(reply):
            size, kind = struct.unpack_from('=HH', reply, at)
            if kind == self.A_FAMILY_ID:
                self.family = struct.unpack_from('=H', reply, at + 4)[0]
            at += size + 3 & ~3

    def call(self, family, cmd, attr, text):
        """One request with one string; the attributes of the reply."""
        value = text.encode() + b'\0'
        body = struct.pack('=BBH', cmd, 1, 0) + struct.pack('=HH', 4 + len(value), attr) + value
        body += bytes(-len(body) % 4)
        self.sock.send(struct.pack('=IHHII', 16 + len(body), family, 5, 1, 0) + body)      # NLM_F_REQUEST | NLM_F_ACK
        reply = b''
        while True:
            data = self.sock.recv(65536)
            at = 0
            while at < len(data):
                size, kind = struct.unpack_from('=IH', data, at)
                if kind == 2:           # NLMSG_ERROR: the acknowledgement
                    err = struct.unpack_from('=i', data, at + 16)[0]
                    if err:
                        raise OSError(-err, text)
                    return reply
                reply += data[at + 20:at + size]
                at += size + 3 & ~3

    def create(self, volume):
        self.call(self.family, self.GEN_CREATE, self.A_VOLUME, volume)


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


class Rig:
    """The devices of one model; every peer uses the same ones in turn."""

    def __init__(self, mib, model, cpu):
        model = MODELS[model]
        self.cpu = cpu
        self.mib = mib
        self.primary = null_blk('prim', mib, model)
        self.cow = [null_blk('cow%d' % i, mib + mib // 8 + 32, model) for i in range(4)]
        self.thin = (null_blk('tmeta', 32, model), null_blk('tdata', 2 * mib + 64, model))
        for dev in self.devices():
            fill(dev)

    def devices(self):
        return (self.primary, *self.cow, *self.thin)

    def clear(self):
        for dev in self.devices():
            null_gone(dev)
