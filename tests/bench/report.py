#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Tables from the figures of a run: medians with ratios, and what was aimed at.
#
# usage: report.py build/bench/FILE.json      (the targets; scripts/bench prints both)
#
# A ratio is the median of the ratios of the rounds, not the ratio of the medians: in one round the two stood close together in time.

import json
import statistics
import sys

from workloads import every, unit

MODEL_TEXT = {
    'memory': 'memory: null_blk in memory, the processor is all there is',
    'latency': 'latency: every request takes 100 us',
    'cache': 'cache: volatile cache, every request takes 100 us',
}


class Results:
    """(model, peer, workload) -> the figures of the rounds."""

    def __init__(self, rows=()):
        self.values = {}
        for r in rows:
            self.values[r['model'], r['peer'], r['workload']] = r['values']

    def add(self, model, peer, workload, figure):
        self.values.setdefault((model, peer, workload), []).append(figure)

    def median(self, *key):
        v = self.values.get(key)
        return statistics.median(v) if v else None

    def ratios(self, key, base):
        a, b = self.values.get(key), self.values.get(base)
        return [x / y for x, y in zip(a, b) if y] if a and b else []

    def rows(self):
        return [{'model': m, 'peer': p, 'workload': w, 'unit': unit(w), 'median': statistics.median(v), 'min': min(v), 'max': max(v), 'values': v}
                for (m, p, w), v in self.values.items()]


def base_of(results, model, workload):
    """dm-linear's figure of the same workload, or of what it is a variant of."""
    for name in (workload, workload.rstrip('0146')):
        if (model, 'dm-linear', name) in results.values:
            return model, 'dm-linear', name
    return None


def cell(results, model, peer, workload):
    med = results.median(model, peer, workload)
    if med is None:
        return '-'
    base = base_of(results, model, workload)
    ratios = results.ratios((model, peer, workload), base) if base else []
    return '%.*f (%.2f)' % (1 if med < 1e4 else 0, med, statistics.median(ratios)) if ratios else '%.1f       ' % med


def heading(peers):
    return '%-12s %-7s' % ('', '') + ''.join('%17s' % p for p in peers)


def lines(results, model, peers, workloads):
    """One line for each workload: medians, and in brackets the ratio to dm-linear."""
    for w in workloads:
        cells = [cell(results, model, p, w) for p in peers]
        if any(c != '-' for c in cells):
            yield '%-12s %-7s' % (w, unit(w)) + ''.join('%17s' % c for c in cells)


# ---- targets -------------------------------------------------------------------------------------------------

class Target:
    """The ratio of two figures, against a limit: at least (>=) or at most (<=)."""

    def __init__(self, text, model, ours, base, sense, limit, why=''):
        self.text, self.model, self.ours, self.base, self.sense, self.limit, self.why = text, model, ours, base, sense, limit, why

    def ratios(self, r):
        return r.ratios((self.model, *self.ours), (self.model, *self.base))


def ours(w):
    return 'snapdiff', w


def linear(w):
    return 'dm-linear', w


def dmsnap(w):
    return 'dm-snapshot', w


def thin(w):
    return 'dm-thin', w


TRANSFERS = 'read, sequential write, write: three transfers for one'
COMMIT = 'ext4 waits for its data and for its journal; each costs a read and a commit group first'
TARGETS = [
    Target('attached, no generation / dm-linear', 'memory', ours('none'), linear('none'), '>=', 0.97, 'gate, counters'),
    Target('rewrite / dm-linear', 'memory', ours('again'), linear('again'), '>=', 0.95, 'gate, bit test, counters'),
    Target('first write, random / dm-snapshot', 'memory', ours('first'), dmsnap('first'), '>=', 2.5, TRANSFERS),
    Target('first write, random / dm-linear', 'memory', ours('first'), linear('first'), '>=', 0.40, TRANSFERS),
    Target('first write, random, 4 generations / dm-snapshot', 'memory', ours('first4'), dmsnap('first4'), '>=', 12, TRANSFERS),
    Target('first write, random / dm-thin', 'memory', ours('first'), thin('first'), '>=', 1.5, TRANSFERS),
    Target('first write, 1,000 generations / 1', 'memory', ours('first1000'), ours('first'), '>=', 0.95, 'the table has as many records'),
    Target('first write, sequential 1 MiB / raw', 'memory', ours('seqfirst'), ('raw', 'seqfirst'), '>=', 0.27, TRANSFERS + ': limit 0.33'),
    Target('latency of a lone first write / raw', 'latency', ours('one'), ('raw', 'one'), '<=', 2.9, 'three requests one after the other: limit 3.0 of what the device itself takes'),
    Target('the same with a volatile cache / dm-snapshot', 'cache', ours('one'), dmsnap('one'), '<=', 0.8, 'read, data and journal, flush, write'),
    Target('fsync, ext4, preserved / dm-linear (memory)', 'memory', ours('fsagain'), linear('fsagain'), '>=', 0.95, 'processor time'),
    Target('fsync, ext4, preserved / dm-linear (cache)', 'cache', ours('fsagain'), linear('fsagain'), '>=', 0.95, 'nothing is added'),
    Target('SQLite commits, preserved / dm-linear (memory)', 'memory', ours('sqlagain'), linear('sqlagain'), '>=', 0.95, 'processor time'),
    Target('SQLite commits, preserved / dm-linear (cache)', 'cache', ours('sqlagain'), linear('sqlagain'), '>=', 0.95, 'nothing is added'),
    Target('fsync, ext4, first touched / dm-linear (memory)', 'memory', ours('fsfirst'), linear('fsfirst'), '>=', 0.5, COMMIT),
    Target('fsync, ext4, first touched / dm-linear (cache)', 'cache', ours('fsfirst'), linear('fsfirst'), '>=', 0.5, COMMIT),
    Target('  the same / dm-snapshot (cache)', 'cache', ours('fsfirst'), dmsnap('fsfirst'), '>=', 1, COMMIT),
    Target('  the same / dm-thin (cache)', 'cache', ours('fsfirst'), thin('fsfirst'), '>=', 1, 'dm-thin copies 64 KiB once for 16 blocks'),
    Target('SQLite commits, first touched / dm-linear (cache)', 'cache', ours('sqlfirst'), linear('sqlfirst'), '>=', 0.5, COMMIT),
    Target('  the same / dm-snapshot (cache)', 'cache', ours('sqlfirst'), dmsnap('sqlfirst'), '>=', 1, COMMIT),
    Target('  the same / dm-thin (cache)', 'cache', ours('sqlfirst'), thin('sqlfirst'), '>=', 1, 'dm-thin copies 64 KiB once for 16 blocks'),
    Target('generation, sequential, unchanged / dm-linear', 'memory', ours('vsame'), linear('vsame'), '>=', 0.9, ''),
    Target('generation, sequential, all changed / dm-linear', 'memory', ours('vseq'), linear('vseq'), '>=', 0.7, 'look-ups and checksums'),
    Target('first writes beside a reader / without', 'latency', ours('wread'), ours('walone'), '>=', 0.8, 'processor time that the reader takes; dm-linear below'),
    Target('  (dm-linear, beside a reader / without)', 'latency', linear('wread'), linear('walone'), '', None),
    Target('p99 of a lone fsync writer beside a flood / dm-snapshot', 'latency', ours('tail99'), dmsnap('tail99'), '<=', 1, 'groups in flight'),
    Target('  the same / dm-linear', 'latency', ours('tail99'), linear('tail99'), '', None),
    Target('writes of the flood for one of the lone writer / dm-snapshot', 'latency', ours('tailover'), dmsnap('tailover'), '<=', 1, 'groups in flight'),
]


def target_lines(results):
    yield '%-60s %-8s %20s %8s  %-5s %s' % ('target', 'model', 'reached (spread)', 'wanted', '', 'what limits it')
    for t in TARGETS:
        ratios = t.ratios(results)
        if not ratios:
            yield '%-60s %-8s %20s %8s  %-5s' % (t.text, t.model, 'not measured', '%s %g' % (t.sense, t.limit) if t.limit else '', '-')
            continue
        reached = statistics.median(ratios)
        good = t.limit is None or (reached >= t.limit if t.sense == '>=' else reached <= t.limit)
        yield '%-60s %-8s %20s %8s  %-5s %s' % (
            t.text, t.model, '%.2f (%.2f-%.2f)' % (reached, min(ratios), max(ratios)), '%s %g' % (t.sense, t.limit) if t.limit else '',
            '' if t.limit is None else 'ok' if good else 'short', t.why)
    yield from plain_lines(results)


PLAIN = [('processor time of a rewrite, us', 'again.cpu'), ('processor time of a first write, us', 'first.cpu'),
         ('processor time, no generation, us', 'none.cpu'), ('copies in a commit group, flood', 'first.group')]


def plain_lines(results):
    """Figures that are reported, not aimed at; dm-linear's beside them."""
    for text, w in PLAIN:
        v = results.values.get(('memory', 'snapdiff', w))
        if v:
            ref = results.median('memory', 'dm-linear', w)
            yield '%-60s %-8s %20s %8s  %-5s %s' % (text, 'memory', '%.2f (%.2f-%.2f)' % (statistics.median(v), min(v), max(v)), '', '',
                                                    'dm-linear: %.2f' % ref if ref is not None else '')


def store_lines(rows):
    """Of bench-store: counts, exact."""
    for r in rows:
        if 'METADATA FOR' in r['what']:
            which = r['what'].split(':')[0]
            limit = 'random' in which and '128' in which
            yield '%-60s %-8s %20s %8s  %-5s %s' % ('metadata written for a copy, ' + which, 'counted', '%.1f bytes' % r['value'], '<= 128' if limit else '',
                                                    ('ok' if r['value'] <= 128 else 'short') if limit else '', 'merges, journal blocks' if limit else '')


def main():
    with open(sys.argv[1], encoding='ascii') as f:
        run = json.load(f)
    results = Results(run['results'])
    if '--figures' in sys.argv[2:]:
        for model in MODEL_TEXT:
            names = [n for n in every(model)]
            print('\n%s\n%s' % (MODEL_TEXT[model], heading(run['peers'])))
            print('\n'.join(lines(results, model, run['peers'], names)))
    print('\n'.join(target_lines(results)))
    if run.get('store'):
        print('\n'.join(store_lines(run['store'])))


if __name__ == '__main__':
    main()
