#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
A reader of Ceph's "rbd diff" streams, written from its description (doc/dev/rbd-diff.rst) and nothing else.

usage: rbd-diff.py show FILE             what is in it, as a line of JSON
       rbd-diff.py apply FILE IMAGE      onto a file

Refused: what the description does not know, records that are out of order or overlap, bytes after the end, no end.
"""
import json
import struct
import sys


class Stream:
    def __init__(self, f):
        self.f = f
        banner = self.get(12)
        assert banner in (b'rbd diff v1\n', b'rbd diff v2\n'), banner
        self.v2 = banner[9:11] == b'v2'

    def get(self, n):
        b = self.f.read(n)
        assert len(b) == n, 'ends early'
        return b

    def num(self, fmt):
        return struct.unpack(fmt, self.get(struct.calcsize(fmt)))[0]

    def records(self):
        """(tag, value): a name, a size, or (offset, length, bytes or None)"""
        while True:
            tag = self.get(1)
            if tag == b'e':
                assert not self.f.read(1), 'bytes after the end'
                return
            rest = self.num('<Q') if self.v2 else None
            if tag in b'ft':
                n = self.num('<I')
                assert not self.v2 or rest == 4 + n
                yield tag, self.get(n).decode()
            elif tag == b's':
                assert not self.v2 or rest == 8
                yield tag, self.num('<Q')
            elif tag in b'wz':
                at, n = self.num('<Q'), self.num('<Q')
                assert n and (not self.v2 or rest == 16 + (n if tag == b'w' else 0))
                yield tag, (at, n, self.get(n) if tag == b'w' else None)
            else:
                raise AssertionError('tag %r' % tag)


def main(verb, path, image=None):
    s = Stream(open(path, 'rb'))
    out = {'version': 2 if s.v2 else 1, 'from': None, 'w': 0, 'z': 0, 'records': 0}
    f, end, data = None, 0, False
    for tag, v in s.records():
        if tag in b'fts':
            assert not data, 'metadata after data'
            out[{b'f': 'from', b't': 'to', b's': 'size'}[tag]] = v
            continue
        data = True
        if verb == 'apply' and not f:
            f = open(image, 'r+b')
            f.truncate(out['size'])
        at, n, raw = v
        assert at >= end and at + n <= out['size'], 'out of order or past the end'
        end = at + n
        out[tag.decode()] += n
        out['records'] += 1
        if f:
            f.seek(at)
            f.write(raw if raw is not None else bytes(n))
    if verb == 'apply' and not f:
        open(image, 'r+b').truncate(out['size'])
    print(json.dumps(out))


main(*sys.argv[1:])
