#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The measurements, inside a guest; scripts/bench starts it. Every peer (peers.py) gets the same memory-backed
# null_blk devices (rig.py: primary, and where it keeps old blocks) in turn: one round of a scenario (workloads.py) is all
# peers one after the other, rounds are repeated, and what is compared are medians of the ratios of rounds, so that a machine
# that slows down slows all peers down.
#
# Every page of every device has been written before the first measurement, with bytes that are not zero: neither null_blk's page
# allocation nor our records of zero chunks (which need no copy) are part of any figure.
#
# Time: every scenario has an equal share of --minutes; one that is behind does fewer rounds (at least one), so that a slow machine
# gives wider figures, not a run without end. How many rounds were made stands behind each line.
#
# A scenario's lines are printed, and the file of figures is written, when it has been measured: a run that is broken off is not lost.

import argparse
import json
import os
import time

import report
from peers import MAIN, PEERS
from rig import Cpu, MODELS, Rig, sh
from workloads import QUICK, SCENARIOS, every


class Bench:
    def __init__(self, a):
        self.a = a
        self.results = report.Results()
        self.start = time.monotonic()
        self.total = sum(self.takes(s, m) for m in MODELS for s in SCENARIOS[m])
        self.done = 0
        self.cpu = Cpu(a.json and os.path.join(os.path.dirname(a.json), 'cpu'))

    def takes(self, scenario, model):
        return bool(set(scenario.names()) & set(self.a.wanted(model)))

    def late(self):
        return time.monotonic() - self.start > self.a.minutes * 60 * self.done / self.total

    def save(self):
        if not self.a.json:
            return
        with open(self.a.json + '.new', 'w', encoding='ascii') as f:
            json.dump({'kernel': os.uname().release, 'machine': os.uname().machine, 'rounds': self.a.rounds, 'mib': self.a.mib,
                       'peers': self.a.peers, 'seconds': round(time.monotonic() - self.start), 'results': self.results.rows()}, f, indent=1)
            f.flush()
            os.fsync(f.fileno())
        os.rename(self.a.json + '.new', self.a.json)

    def scenario(self, model, peers, scenario, wanted):
        seen, rounds = [], 0
        self.done += 1
        while rounds < self.a.rounds and not (rounds and self.late()):
            rounds += 1
            for peer in peers:
                for workload, figure in scenario.run(peer, wanted):
                    self.results.add(model, peer.name, workload, figure)
                    if workload not in seen:
                        seen.append(workload)
        for line in report.lines(self.results, model, self.a.peers, seen):
            print(line + '%6d s, %d x' % (time.monotonic() - self.start, rounds), flush=True)
        self.save()

    def model(self, model):
        wanted = self.a.wanted(model)
        if not wanted:
            return
        rig = Rig(self.a.mib, model, self.cpu)
        peers = [PEERS[p](rig) for p in self.a.peers]
        print('\n%s; %d rounds of %d MiB, at most\n%s' % (report.MODEL_TEXT[model], self.a.rounds, self.a.mib, report.heading(self.a.peers)), flush=True)
        for scenario in SCENARIOS[model]:
            if self.takes(scenario, model):
                self.scenario(model, peers, scenario, wanted)
        rig.clear()


def arguments():
    ap = argparse.ArgumentParser()
    ap.add_argument('--rounds', type=int)
    ap.add_argument('--model', default=','.join(MODELS))
    ap.add_argument('--mib', type=int)
    ap.add_argument('--minutes', type=float)
    ap.add_argument('--peers')
    ap.add_argument('--workloads')
    ap.add_argument('--quick', action='store_true')
    ap.add_argument('--json')
    a = ap.parse_args()
    a.rounds = a.rounds or (3 if a.quick else 5)
    a.minutes = a.minutes or (6 if a.quick else 20)
    a.mib = a.mib or (128 if a.quick else 256)
    a.peers = a.peers.split(',') if a.peers else MAIN if a.quick else list(PEERS)
    a.model = a.model.split(',')
    known = {w for m in MODELS for w in every(m)}
    if set(a.peers) - set(PEERS) or set(a.model) - set(MODELS) or a.workloads and set(a.workloads.split(',')) - known:
        ap.error('unknown peer, model or workload')
    a.wanted = lambda model: [] if model not in a.model else a.workloads.split(',') if a.workloads else \
        QUICK[model] if a.quick else every(model)
    return a


def main():
    a = arguments()
    sh('modprobe', 'null_blk', 'nr_devices=0')
    bench = Bench(a)
    for model in MODELS:
        bench.model(model)
    print('\n' + '\n'.join(report.target_lines(bench.results)), flush=True)


main()
