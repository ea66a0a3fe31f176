"""The memory and the bytes of each way to collect: what the formulas say is what the sessions do."""

from __future__ import annotations

import threading
import warnings

import numpy as np
import pytest

import horovod_byz as hb
from horovod_byz.collect import Bound, Collector, Layout, bind, memory, transport
from horovod_byz.collect.compression import Uncompressed
from horovod_byz.collect.session import Job
from horovod_byz.plan import traffic
from horovod_byz.plan.passes import passes
from thread_ranks import matrix, on_ranks, succeeded

WAYS = [
    hb.Symmetric(),
    hb.Root(),
    hb.Root(dedicated=True),
    hb.Sharded(),
    hb.Sharded(replicas=2),
    hb.Sharded(replicas=3),
]


def arrays(value):
    """The NumPy arrays in a session's attributes, lists of them too."""
    values = value if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, np.ndarray)]


def memory_of(array):
    """The array that owns the memory of a view."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


@pytest.mark.parametrize(
    "compression", [Uncompressed(), hb.SignCompression(), hb.HalfCompression()], ids=repr
)
@pytest.mark.parametrize("layout", [(1, 1, 1), (2, 1, 3, 2)], ids=str)
@pytest.mark.parametrize("way", WAYS, ids=repr)
def test_a_session_holds_what_the_formula_says(way, layout, compression):
    d, dtype = 80_001, np.float64

    def held(rank):
        rows = Layout((0, *layout[1:])) if way == hb.Root(dedicated=True) else Layout(layout)
        session = way.session(Job(rank, d, dtype, layout, compression=compression))
        session.step(np.ones((rows.rows[rank.rank], d)), hb.Median())
        plain = {"_packed"} if isinstance(compression, Uncompressed) else set()  # the caller's rows
        kept = [value for name, value in vars(session).items() if name not in plain]
        memory = [memory_of(array) for value in kept for array in arrays(value)]
        return sum(array.nbytes for array in {id(array): array for array in memory}.values())

    said = [way.held(Bound(Layout(layout), d, dtype, compression), rank) for rank in range(len(layout))]
    assert succeeded(on_ranks(len(layout), held)) == said


class Counting:
    """Notes the bytes that a `ThreadRank` exchanges with others; an allgather counts as a ring."""

    def __init__(self, rank):
        self.sent = self.received = 0
        self._rank = rank
        for name in ("exchange_any", "allgather", "alltoall", "start", "gather", "hand_out"):
            self._wrap(name, getattr(rank, name), getattr(self, f"_{name}"))

    def _wrap(self, name, call, count):
        def counted(*arguments):
            result = call(*arguments)
            count(result, *arguments)
            return result

        setattr(self._rank, name, counted)

    def _others(self):
        return [rank for rank in range(self._rank.size) if rank != self._rank.rank]

    def _exchange_any(self, result, message, phase, most):
        # Over Horovod and torch.distributed a header carries a key.
        key = traffic.KEY_SIZE if phase == "header exchange" else 0
        self.sent += len(self._others()) * (message.size + key)
        self.received += sum(result[rank].size + key for rank in self._others())

    def _allgather(self, result, own, out, phase):
        sizes = [size for (size,) in self._rank._swap((own.nbytes,))]
        after = (self._rank.rank + 1) % self._rank.size
        self.sent += sum(sizes) - sizes[after]
        self.received += sum(sizes) - own.nbytes

    def _alltoall(self, result, send, splits, out, expected, phase):
        self.sent += sum(splits[rank] for rank in self._others()) * send.itemsize
        self.received += sum(expected[rank] for rank in self._others()) * out.itemsize

    _start = _alltoall

    def _gather(self, result, rows, out, layout):
        own = 0 if self._rank.rank else rows.nbytes
        self.sent += 0 if self._rank.rank == 0 else rows.nbytes
        self.received += 0 if out is None else out.nbytes - own

    def _hand_out(self, result, value):
        self.sent += 0 if self._rank.rank else value.nbytes * len(self._others())
        self.received += value.nbytes if self._rank.rank else 0


@pytest.mark.parametrize("rule", [hb.Median(), hb.MultiKrum(f=1), hb.Mean()], ids=repr)
@pytest.mark.parametrize("layout", [(1, 1, 1, 1, 1), (2, 1, 3)], ids=str)
@pytest.mark.parametrize("way", WAYS, ids=repr)
def test_a_step_sends_and_receives_the_bytes_that_the_formula_says(way, layout, rule):
    d, rows = 100_003, Layout(layout)
    if isinstance(way, hb.Root) and way.dedicated:
        rows = Layout((0, *layout[1:]))
    matrix_ = np.nan_to_num(matrix(rows.n, d))
    if not rule.defined_for(rows.n):
        pytest.skip("too few rows for the rule")
    counters = {}

    def work(rank):
        session = way.session(Job(rank, d, np.float32, rows))
        counter = counters[rank.rank] = Counting(rank)
        workers = rows.workers(rank.rank)
        session.step(matrix_[workers.start : workers.stop], rule)
        return counter.sent, counter.received

    counted = succeeded(on_ranks(len(layout), work))
    bound, made = Bound(rows, d), passes(rule, rows.n)
    if isinstance(way, hb.Sharded):
        messages = traffic.sharded(bound, made, "horovod", way.replicas)
    else:
        messages = (traffic.root if isinstance(way, hb.Root) else traffic.symmetric)(bound, made, "horovod")
    said = [traffic.total(messages, len(layout), of).tolist() for of in ("sent", "received")]
    assert counted == list(zip(*said, strict=True))


def test_the_counter_of_these_tests_counts():
    def work(rank):
        counter = Counting(rank)
        rank.exchange(np.zeros(7, np.uint8), "anything")
        rank.alltoall(np.zeros(3), [1, 1, 1], np.zeros(3), [1, 1, 1], "anything")
        return counter.sent, counter.received

    assert succeeded(on_ranks(3, work)) == [(30, 30)] * 3


class TestWarning:
    """A session that does not fit the machine is reported before anything is allocated."""

    @pytest.fixture
    def room(self, monkeypatch):
        def give(size, ranks=1):
            monkeypatch.setattr(memory, "_SAID", set())
            monkeypatch.setattr(memory, "free", lambda: size)
            monkeypatch.setattr(memory.process, "local_size", lambda: ranks)

        return give

    def bound(self, monkeypatch, collector, size=4, d=2_000_000):
        """The warnings of all ranks that bind a collector, one worker each."""

        def work(rank):
            local.rank = rank
            return bind(collector, d, np.float32)

        local = threading.local()
        monkeypatch.setattr(transport, "connect", lambda name, timeout: local.rank)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            succeeded(on_ranks(size, work))
        return [str(each.message) for each in caught if each.category is RuntimeWarning]

    def test_every_rank_names_the_way_that_fits_once(self, room, monkeypatch):
        room(30_000_000)  # symmetric holds 5 d = 40 MB, sharded 1.25 d = 10 MB
        said = self.bound(monkeypatch, "symmetric")
        assert len(said) == 4
        assert set(said) == {
            "Symmetric() with n = 4 rows of d = 2,000,000 will hold 0.04 GB on a machine with 1 rank, and "
            "0.03 GB are free here: use collect=Sharded(replicas=1), which holds 0.01 GB there"
        }
        assert self.bound(monkeypatch, "symmetric") == []  # said before
        assert self.bound(monkeypatch, "root")  # rank 0 holds as much
        assert self.bound(monkeypatch, "sharded") == []

    def test_what_fits_says_nothing(self, room, monkeypatch):
        room(50_000_000)
        assert self.bound(monkeypatch, "symmetric") == []

    def test_ranks_of_one_machine_share_its_memory(self, room, monkeypatch):
        room(35_000_000, ranks=4)
        said = self.bound(monkeypatch, "symmetric")
        assert "will hold 0.16 GB on a machine with 4 ranks" in said[0]
        assert "no way to collect holds so little" in said[0]
        room(45_000_000, ranks=4)
        assert "use collect=Sharded(replicas=1)" in self.bound(monkeypatch, hb.Sharded(replicas=3))[0]

    def test_a_machine_that_does_not_say_its_memory_warns_of_nothing(self, room, monkeypatch):
        room(None)
        assert self.bound(monkeypatch, "symmetric") == []

    def test_the_free_memory_is_read(self, monkeypatch):
        assert memory.free() > 2**20
        monkeypatch.setattr(memory.machine, "memory_mib", lambda: 0)
        assert memory.free() is None

        def nothing():
            raise FileNotFoundError("/proc/meminfo")

        monkeypatch.setattr(memory.machine, "memory_mib", nothing)
        assert memory.free() is None

    def test_before_anything_is_allocated(self, room):
        class Refusing(Collector):
            def held(self, bound, rank):
                return 10**12

            def session(self, job):
                raise MemoryError

            def __repr__(self):
                return "Refusing()"

        room(10**9)
        said = r"Refusing\(\) with n = 1 rows of d = 1,000 will hold 1,000.00 GB .*: use collect=Sharded"
        with pytest.warns(RuntimeWarning, match=said), pytest.raises(MemoryError):
            Refusing().bind(1000, np.float32)
