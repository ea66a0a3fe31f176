"""Ranks as threads of this process: a `Transport` for tests, with room for ranks that misbehave."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from horovod_byz.collect.channels import Silent
from horovod_byz.collect.errors import TransportError
from horovod_byz.collect.layout import Layout
from horovod_byz.collect.places import clean
from horovod_byz.collect.protocol import MOST_ELEMENTS, SLACK, check_received, too_much
from horovod_byz.collect.session import Job
from horovod_byz.collect.watchdog import Watchdog
from horovod_byz.host.place import host_name

AT = f"(host {clean(host_name())})"  # how errors say where the ranks run


def said(error: Exception) -> str:
    """An error's text, without where the ranks run."""
    return str(error).replace(f" {AT}", "")


PATIENCE = 100.0  # seconds for all ranks to arrive; a loaded machine runs 46 threads slowly


class ThreadRank:
    """One of several ranks in one process.

    Attributes:
        lie: `lie(phase, message, to)` returns what this rank sends to rank `to` in an exchange.
        tamper: `tamper(out)` changes what the allgather delivers to this rank.
    """

    is_current = True

    def __init__(self, rank, board, barrier, posts):
        self.rank, self.size, self.most = rank, len(board), MOST_ELEMENTS
        self._posts, self._begun = posts, Counter()
        self.watchdog = Watchdog(rank, self.size, Silent(), 60.0)
        self._board, self._barrier = board, barrier
        self.lie = lambda phase, message, to: message
        self.tamper = lambda out: None

    def _swap(self, thing):
        self._board[self.rank] = thing
        self._barrier.wait(PATIENCE)
        things = list(self._board)
        self._barrier.wait(PATIENCE)
        return things

    def exchange_any(self, message, phase, most):
        sent = [self.lie(phase, message.copy(), to) for to in range(self.size)]
        received = [them[self.rank] for them in self._swap(sent)]
        if sum(map(len, received)) > self.size * most + SLACK:
            raise TransportError(too_much(phase))
        return received

    def exchange(self, message, phase):
        received = self.exchange_any(message, phase, message.size)
        check_received([message.size] * self.size, list(map(len, received)), phase)
        return np.stack(received)

    def allgather(self, own, out, phase):
        out[:] = np.concatenate(self._swap(own.copy()))
        self.tamper(out)

    def alltoall(self, send, splits, out, expected, phase):
        pieces = np.split(send.copy(), np.cumsum(splits)[:-1])
        received = [them[self.rank] for them in self._swap(pieces)]
        check_received(expected, [piece.size for piece in received], phase)
        out[:] = np.concatenate(received)

    def separate(self):
        """Threads exchange by name."""

    def start(self, send, splits, out, expected, phase):
        """The others may wait for it in any order; it arrives when this rank waits, as late as it may."""
        self._begun[phase] += 1
        key = phase, self._begun[phase]
        self._posts.put(key, self.rank, np.split(send.copy(), np.cumsum(splits)[:-1]))
        out.view(np.uint8)[:] = 0xFF  # NaN, for who reads before

        def finish():
            received = [pieces[self.rank] for pieces in self._posts.get(key)]
            check_received(expected, [piece.size for piece in received], phase)
            out[:] = np.concatenate(received)

        return _Started(finish)

    def gather(self, rows, out, layout):
        parts = self._swap(rows.copy())
        if out is not None:
            out[:] = np.concatenate(parts)

    def hand_out(self, value):
        value[:] = self._swap(value.copy())[0]


class _Posts:
    """What the ranks have sent, by exchange."""

    def __init__(self, barrier):
        self._barrier, self._all, self._changed = barrier, defaultdict(dict), threading.Condition()

    def put(self, key, rank, pieces):
        with self._changed:
            self._all[key][rank] = pieces
            self._changed.notify_all()

    def get(self, key):
        """The pieces of every rank, when all have sent them; raises when a rank has failed meanwhile."""
        size, deadline = self._barrier.parties, time.monotonic() + PATIENCE
        with self._changed:
            while len(self._all[key]) < size:
                if self._barrier.broken or time.monotonic() > deadline:
                    raise threading.BrokenBarrierError
                self._changed.wait(0.1)
            return [self._all[key][rank] for rank in range(size)]


class _Started:
    over = False

    def __init__(self, finish):
        self._finish = finish

    def wait(self):
        finish, self._finish = self._finish, None
        if finish is not None:
            finish()


def on_ranks(size, work, aborting=True):
    """Runs `work(transport)` on `size` ranks; returns each rank's result, or the exception it raised.

    The first exception wakes the ranks that wait, unless every rank is expected to raise by itself.
    """
    barrier = threading.Barrier(size)
    board, posts = [None] * size, _Posts(barrier)

    def guarded(rank):
        try:
            return work(ThreadRank(rank, board, barrier, posts))
        except Exception as error:  # noqa: BLE001 - the test says which one it expects
            if aborting:
                barrier.abort()
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(guarded, range(size)))


def succeeded(results):
    """The results of `on_ranks`, none of which is an exception."""
    for result in results:
        assert not isinstance(result, Exception), result
    return results


def on_ranks_that_fail(size, work):
    """As `on_ranks`, where all ranks are expected to raise, each by itself."""
    return on_ranks(size, work, aborting=False)


def collect(collector, rule, rows, layout, wire=None, *, prepare=None, steps=1, **job):
    """What each rank collected at the last step, the rows being spread over ranks as the layout says.

    Args:
        prepare: called with each rank's transport first; may make it misbehave.
        job: more of `Job`.
    """

    def work(transport):
        if prepare is not None:
            prepare(transport)
        workers = Layout(layout).workers(transport.rank)
        session = collector.session(Job(transport, rows.shape[1], rows.dtype, layout, **job))
        return [session.step(rows[workers.start : workers.stop], rule, wire) for _ in range(steps)][-1]

    return on_ranks(len(layout), work)


def matrix(n, d, dtype=np.float32, seed=0):
    rows = np.random.default_rng(seed).standard_normal((n, d)).astype(dtype)
    if d > 2:
        rows[n - 1, d // 2] = np.nan
    return rows


def value(result):
    return succeeded([result])[0].value
