"""Ranks as threads: a gather between shards without Horovod."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from horovod_byz.aggregation import engine
from horovod_byz.aggregation.shard import Shard
from horovod_byz.aggregation.source import Whole
from horovod_byz.aggregation.tiles import shards
from horovod_byz.kernels.rows import Rows


class Gather:
    """`reduce` for `count` threads: each hands in its partial and gets all of them, in order."""

    def __init__(self, count):
        self._barrier = threading.Barrier(count, timeout=60)
        self._slots = [None] * count

    def abort(self):
        self._barrier.abort()

    def rank(self, index):
        def reduce(partial):
            self._slots[index] = partial
            self._barrier.wait()
            everything = list(self._slots)
            self._barrier.wait()
            return everything

        return reduce


def on_shards(count, d, work):
    """Runs work(index, begin, end, reduce) for every shard of d coordinates, each in its own thread."""
    gather = Gather(count)

    def rank(index, begin, end):
        try:
            return work(index, begin, end, gather.rank(index))
        except BaseException:
            gather.abort()
            raise

    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(rank, i, begin, end) for i, (begin, end) in enumerate(shards(d, count))]
        failures = [future.exception() for future in futures]
    causes = [error for error in failures if error and not isinstance(error, threading.BrokenBarrierError)]
    if causes:
        raise causes[0]
    return [future.result() for future in futures]


def run_sharded(rule, rows, count, memory=None, **options):
    """Aggregates (n, d) rows in `count` shards; returns the value and every shard's outcome."""
    d = rows.shape[1]
    value = np.empty(d, rows.dtype)

    def work(_, begin, end, reduce):
        source = Whole(Rows(np.ascontiguousarray(rows[:, begin:end])))
        shard = Shard(d, ((begin, end),), reduce, memory=memory, **options)
        return engine.run(rule, source, value[begin:end], shard)

    return value, on_shards(count, d, work)
