"""What the ledger's file costs: steps with and without it, interleaved in one run.

    python tools/ledger_cost.py [--workers 16] [--faulty]

A step is that of a rank: the gradient of one worker on the network of launch/examples/mnist.py, and the
median of 16 rows (the other 15 are that gradient with noise), in one process. Each block of 20 steps, which
is a window of the file, runs with the next of three ledgers: in memory without listeners; in memory as every
optimizer has it (log, slow ranks); and with a file. Processor time is compared, which other processes disturb
little; the ledger's own time is also measured directly, around its call.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time

import numpy as np
import torch
from torch import nn

import horovod_byz as hb
from horovod_byz.collect import bind
from horovod_byz.host.place import Place
from horovod_byz.optimizer.rows import WorkerRows
from horovod_byz.optimizer.synchronizer import Synchronizer

BLOCK = 20


class Timed:
    """A ledger whose `add` is timed."""

    def __init__(self, ledger):
        self.ledger, self.seconds = ledger, 0.0

    def add(self, *arguments):
        start = time.process_time()
        self.ledger.add(*arguments)
        self.seconds += time.process_time() - start


def network():
    features = [nn.Conv2d(1, 10, 5, padding=2), nn.MaxPool2d(2), nn.ReLU()]
    features += [nn.Conv2d(10, 20, 5, padding=2), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*features, nn.Linear(980, 50), nn.ReLU(), nn.Linear(50, 10))


def ledgers(folder, workers):
    bare, usual, file = hb.Ledger(), hb.Ledger(), hb.Ledger(folder)
    bare.listeners.clear()
    for ledger in (bare, usual, file):
        ledger.bind([Place(rank, (rank,)) for rank in range(workers)], workers=workers)
    return {"no listeners": bare, "as always": usual, "with a file": file}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workers", type=int, default=16, help="workers (default: 16)")
    parser.add_argument("--blocks", type=int, default=8, help="blocks of 20 steps per ledger (default: 8)")
    parser.add_argument("--faulty", action="store_true", help="one worker sends NaN at every third step")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    logging.getLogger("horovod_byz").setLevel(logging.ERROR)
    model = network()
    rows = WorkerRows(list(model.parameters()), workers=args.workers)
    session = bind("symmetric", rows.d, np.float32, args.workers, threads=1)
    noise = np.random.default_rng(0).normal(0, 0.01, (args.workers - 1, rows.d)).astype(np.float32)
    images, labels = torch.randn(64, 1, 28, 28), torch.randint(0, 10, (64,))

    def fault(block, offset, d, step):
        if args.faulty and step % 3 == 0:
            block[1, 0] = np.nan

    def step(ledger):
        model.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        array = rows.fill(0)
        np.add(noise, array[0], out=array[1:])
        Synchronizer(session, hb.Median(), ledger).step(array, fault)

    with tempfile.TemporaryDirectory() as folder:
        timed = {name: Timed(ledger) for name, ledger in ledgers(folder, args.workers).items()}
        seconds = {name: [] for name in timed}
        for ledger in timed.values():
            step(ledger)
            ledger.seconds = 0.0
        for _ in range(args.blocks):
            for name, ledger in timed.items():
                start = time.process_time()
                for _ in range(BLOCK):
                    step(ledger)
                seconds[name].append((time.process_time() - start) / BLOCK)
    base = statistics.median(seconds["no listeners"])
    print(f"{args.workers} workers, d = {rows.d}, {args.blocks} blocks of {BLOCK} steps each")
    for name, ledger in timed.items():
        whole, own = statistics.median(seconds[name]), ledger.seconds / (args.blocks * BLOCK)
        print(
            f"{name:14s} step {1e3 * whole:8.3f} ms ({100 * (whole / base - 1):+.2f} %), "
            f"of which Ledger.add {1e6 * own:6.1f} us ({100 * own / whole:.2f} % of the step)"
        )


if __name__ == "__main__":
    main()
