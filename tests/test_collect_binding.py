"""What ranks agree on before the first step: who holds how many workers, and the state of the parameters.

Version 0.1.0: a rank of five that announced seven workers when its session was bound was believed in every
mode, and outvoted the honest. Cause: the layout was read from the headers, and compared with nothing.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import horovod_byz as hb
from horovod_byz.collect import (
    EquivocationError,
    HeaderMismatchError,
    Layout,
    Root,
    Sharded,
    StateMismatchError,
    Symmetric,
    TransportError,
    bind,
    echoes,
    header,
)
from horovod_byz.collect.session import Job
from thread_ranks import AT, matrix, on_ranks_that_fail, said, value

COLLECTORS = [Symmetric(), Root(), Root(dedicated=True), Sharded(), Sharded(replicas=3)]
SIZE, LIAR = 5, 2
HONEST = [rank for rank in range(SIZE) if rank != LIAR]
EVERY = pytest.mark.parametrize("collector", COLLECTORS, ids=repr)


def bound(collector, workers, lie=None, d=100):
    """What each of five ranks gets when it binds; `workers(rank)` is its configuration."""

    def work(transport):
        if lie is not None and transport.rank == LIAR:
            transport.lie = lie
        return collector.session(Job(transport, d, np.float32, workers(transport.rank)))

    return on_ranks_that_fail(SIZE, work)


def announcing(**numbers):
    """A liar's header: `rows` is a number, or one for each receiver."""

    def lie(phase, message, to):
        if phase != "header exchange":
            return message
        changed = {name: value(to) if callable(value) else value for name, value in numbers.items()}
        return replace(header.unpack(message), **changed).pack()

    return lie


@EVERY
@pytest.mark.parametrize("many", [7, 0, 10**6])
def test_a_rank_that_is_configured_with_other_workers_is_refused_by_all(collector, many):
    for rank, error in enumerate(bound(collector, lambda rank: many if rank == LIAR else 1)):
        assert isinstance(error, HeaderMismatchError), error
        assert error.ranks == (LIAR,), rank
        assert "rank 2: " in str(error)
        assert "expected number of rows per rank differs" in str(error)


@EVERY
@pytest.mark.parametrize("many", [7, 0, 10**6, 2**31, 2**62, 2**63 - 1, -1, -(2**63)])
def test_a_rank_that_announces_other_workers_is_refused_by_all(collector, many):
    errors = bound(collector, lambda _: 1, announcing(rows=many))
    for rank in HONEST:
        assert isinstance(errors[rank], HeaderMismatchError), errors[rank]
        assert errors[rank].ranks == (LIAR,)
        assert f"rank 2: rows {many} where 1 were bound" in str(errors[rank])


@EVERY
def test_a_rank_that_announces_other_workers_to_each_rank_is_refused_by_all(collector):
    errors = bound(collector, lambda _: 1, announcing(rows=lambda to: to + 1))
    for rank in HONEST:
        assert isinstance(errors[rank], TransportError), errors[rank]
        assert errors[rank].ranks == (LIAR,)


@EVERY
def test_a_rank_that_announces_other_workers_to_one_rank_is_refused_by_all(collector):
    """The victim knows who lied; to the others it is one's word against another's."""
    victim = 0
    errors = bound(collector, lambda _: 1, announcing(rows=lambda to: 7 if to == victim else 1))
    assert isinstance(errors[victim], HeaderMismatchError)
    assert errors[victim].ranks == (LIAR,)
    for rank in (1, 3, 4):
        assert isinstance(errors[rank], EquivocationError)
        assert errors[rank].ranks == (victim, LIAR)
        assert f"ranks 0 and 2 {AT} contradict one another about headers" in str(errors[rank])


@EVERY
def test_another_layout_with_the_same_own_number_is_an_error_on_every_rank(collector):
    """Rank 2's configuration differs from the others' in what it says of rank 4 only."""
    layouts = {LIAR: (1, 1, 1, 1, 3)}
    for error in bound(collector, lambda rank: layouts.get(rank, (1,) * 5)):
        assert isinstance(error, HeaderMismatchError)
        assert error.ranks == (LIAR,)


@EVERY
def test_workers_may_be_given_for_each_rank(collector):
    rows = matrix(8, 5000)
    layout = Layout((0, 3, 2, 1, 2))

    def work(transport):
        session = collector.session(Job(transport, 5000, np.float32, layout))
        mine = session.workers
        return session.step(rows[mine.start : mine.stop], hb.Median())

    for result in on_ranks_that_fail(SIZE, work):
        np.testing.assert_array_equal(value(result), hb.Median()(rows))


def test_a_dedicated_root_has_no_worker_in_anybodys_expectation():
    for session in bound(Root(dedicated=True), lambda _: 2):
        assert session.layout == Layout((0, 2, 2, 2, 2))
    sessions = bound(Root(dedicated=True), lambda rank: (9, 1, 1, 1, 1) if rank == LIAR else 1)
    assert [session.n for session in sessions] == [4] * SIZE


def test_an_invalid_number_of_workers_is_refused():
    with pytest.raises(ValueError, match=r"one number per rank, 1 in all, got \(1, 2\)"):
        bind("root", 10, np.float32, (1, 2))
    for wrong in (-1, 2**31, 2**62, (-1,), Layout((2**40,))):
        with pytest.raises(ValueError, match="local_workers from 0 to 2147483647 on each rank"):
            bind("root", 10, np.float32, wrong)
    for wrong in (1.5, "4", None, (1.0,)):
        with pytest.raises(TypeError, match="local_workers must be a whole number"):
            bind("root", 10, np.float32, wrong)
    assert bind("root", 10, np.float32, np.int64(3)).n == bind("root", 10, np.float32, [3]).n == 3


class TestEchoes:
    """Who lies when reports contradict one another."""

    @staticmethod
    def said(size, changes):
        reports = np.zeros((size, size, 2), np.uint8)
        for reporter, subject in changes:
            reports[reporter, subject] = 1 + reporter
        return reports

    @pytest.mark.parametrize(
        ("size", "changes", "ranks", "text"),
        [
            (5, [(0, 1), (2, 1), (3, 1)], (1,), "rank 1 gave different ranks different rows"),
            (5, [(1, s) for s in (0, 2, 3, 4)], (1,), "rank 1 gave different ranks"),
            (5, [(4, 1)], (1, 4), "ranks 1 and 4 contradict one another"),
            # Two liars of five may accuse an honest rank together: it is not convicted.
            (5, [(0, 1), (2, 1)], (0, 1, 2), "ranks 0, 1 and 2 contradict"),
            (3, [(0, 1), (2, 1)], (1,), "rank 1 gave"),
            (2, [(0, 1)], (0, 1), "ranks 0 and 1 gave different ranks"),
        ],
    )
    def test_names(self, size, changes, ranks, text):
        with pytest.raises(EquivocationError, match=text) as error:
            echoes.check(self.said(size, changes), "rows")
        assert error.value.ranks == ranks

    def test_equal_reports_pass(self):
        assert echoes.check(self.said(4, []), "rows") is None


class TestState:
    """A digest of the parameters in the header, which all ranks must share."""

    def steps(self, states, collector):
        """What each rank collects at the last step; states[step][rank] is its state."""

        def work(transport):
            session = collector.session(Job(transport, 10, np.float32))
            row = np.ones((len(session.workers), 10), np.float32)
            return [session.step(row, hb.Mean(), state=all_[transport.rank]) for all_ in states][-1]

        return on_ranks_that_fail(len(states[0]), work)

    @EVERY
    def test_equal_or_absent_states_pass(self, collector):
        states = [[b"a" * 16] * 4, [b""] * 4, [bytes(16)] * 4, [b"b" * 16] * 4]
        assert all(value(result).all() for result in self.steps(states, collector))

    @EVERY
    def test_the_rank_that_differs_is_named_on_every_rank(self, collector):
        same = [b"a" * 16] * 4
        for error in self.steps([same, [b""] * 4, [*same[:2], b"x" * 16, same[3]]], collector):
            assert isinstance(error, StateMismatchError), error
            assert error.ranks == (2,)
            assert str(error).startswith(f"rank 2 {AT}'s parameters, optimizer state or options")
            assert "differ from the other ranks' since a step from 1 to 2" in str(error)
            assert "broadcast them, or restore a checkpoint" in str(error)

    def test_the_error_says_since_which_step(self):
        same, other = [b"a" * 16] * 3, [b"a" * 16, b"b" * 16, b"c" * 16]
        assert "since step 0 or before:" in str(self.steps([other], Symmetric())[0])
        assert "since step 1:" in str(self.steps([same, other], Symmetric())[0])

    def test_without_a_majority_nobody_is_accused(self):
        """Version 0.2.0: of equally frequent states the lowest rank's was believed, and the other accused."""
        for error in self.steps([[b"a" * 16, b"b" * 16]], Symmetric()):
            assert error.ranks == ()
            assert error.sides == ((0,), (1,))
            assert "of rank 0 and rank 1 differ, and no majority of ranks says whose are right" in said(error)

    def test_a_rank_without_a_state_among_others_differs(self):
        for error in self.steps([[b"a" * 16, b"", b"a" * 16]], Symmetric()):
            assert error.ranks == (1,)

    def test_refuses_another_length(self):
        with pytest.raises(ValueError, match="state must be 16 bytes or none, got 5"):
            bind("root", 10, np.float32).step(np.ones((1, 10), np.float32), hb.Mean(), state=b"12345")
