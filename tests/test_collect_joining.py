"""A rank that is new among ranks that were there before, as when an elastic job replaces a worker.

Version 0.1.0: the new rank was in another collective than the others, and the job ended. Cause: a rank that
stays keeps its rank and the number of ranks, and cannot see that Horovod was initialised again.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import horovod_byz as hb
from horovod_byz.collect import (
    EquivocationError,
    HeaderMismatchError,
    Root,
    Sharded,
    SignCompression,
    StateMismatchError,
    Symmetric,
    header,
)
from horovod_byz.collect.session import Job
from thread_ranks import matrix, on_ranks_that_fail, succeeded

COLLECTORS = [Symmetric(), Root(), Root(dedicated=True), Sharded(), Sharded(replicas=3)]
SIZE, D = 5, 100
EVERY = pytest.mark.parametrize("collector", COLLECTORS, ids=repr)


def joined(collector, new, *, lie=None, liar=2, shared=None, state=None, before=2, **job):
    """What each of five ranks collected, or raised, at two steps after the `new` ones were bound again."""

    def work(transport):
        rank = transport.rank
        bound = Job(transport, D, np.float32, 1, **job)
        if collector == Root(dedicated=True):
            bound = replace(bound, local_workers=(0, 1, 1, 1, 1))
        session, greeted = collector.session(bound), []
        session.when_bound(lambda ranks, rule: greeted.append(rule), hb.Median())
        rows = matrix(SIZE, D)[list(session.workers)]
        for _ in range(before):
            session.step(rows, hb.Median())
        if lie is not None and rank == liar:
            transport.lie = lie
        if rank in new:
            session = collector.session(replace(bound, shared=(shared or {}).get(rank, "")))
            session.when_bound(lambda ranks, rule: greeted.append(rule), hb.Median())
        digests = {} if state is None else {"state": lambda step: state(rank, step)}
        results = [session.step(rows, hb.Median(), **digests) for _ in range(2)]
        return [(c.step, c.value.copy()) for c in results[:1]], results[1].step, len(greeted)

    return on_ranks_that_fail(SIZE, work)


@EVERY
@pytest.mark.parametrize("new", [(0,), (4,), (1, 2), (0, 1, 2, 3)], ids=str)
def test_all_bind_with_the_ranks_that_are_new(collector, new):
    rows = matrix(SIZE, D)[: SIZE - (collector == Root(dedicated=True))]
    for outcome in joined(collector, new):
        ((step, value),), following, greetings = outcome
        assert (step, following) == (0, 1)
        assert greetings == 2  # once when bound first, once with the new ranks
        np.testing.assert_array_equal(value, hb.Median()(rows))


def test_compressed_rows_too():
    succeeded(joined(Sharded(), (3,), compression=SignCompression()))


@EVERY
def test_states_are_compared_with_the_rank_that_is_new(collector):
    """Those that stay are between two comparisons, and compare with the new rank all the same."""
    due = []

    def state(rank, step):
        due.append(step)
        return bytes([rank == 4]) * 16 if step == 0 else b""

    for error in joined(collector, (4,), state=state):
        assert isinstance(error, StateMismatchError), error
        assert error.ranks == (4,)
    assert set(due) == {0, 2}
    for outcome in joined(collector, (4,), state=lambda rank, step: b"x" * 16 if step == 0 else b""):
        assert outcome[1] == 1


@EVERY
def test_a_new_rank_with_another_model_is_named_by_all(collector):
    for error in joined(collector, (3,), shared={3: "another model"}):
        assert isinstance(error, HeaderMismatchError), error
        assert error.ranks == (3,)


@EVERY
def test_a_rank_that_binds_again_and_again_is_named(collector):
    """It must not keep the others from training without a word."""

    def lie(phase, message, to):
        sent = header.unpack(message) if phase == "header exchange" else None
        return message if sent is None else replace(sent, step=header.BINDING).pack()

    errors = joined(collector, (), lie=lie)
    for rank in (0, 1, 3, 4):
        assert isinstance(errors[rank], HeaderMismatchError), errors[rank]
        assert errors[rank].ranks == (2,)
        assert "rank 2: step -1 where most have 0" in str(errors[rank])


@EVERY
def test_a_rank_that_never_binds_is_named(collector):
    """All wait for it once only."""

    def lie(phase, message, to):
        sent = header.unpack(message) if phase == "header exchange" else None
        return message if sent is None else replace(sent, step=2).pack()

    errors = joined(collector, (0,), lie=lie)
    for rank in (0, 1, 3, 4):
        assert isinstance(errors[rank], HeaderMismatchError), errors[rank]
        assert errors[rank].ranks == (2,)


@EVERY
def test_a_liar_cannot_part_the_others_while_a_rank_joins(collector):
    """It binds with some and steps with others: all get the error, and nobody waits for anybody."""

    def lie(phase, message, to):
        sent = header.unpack(message) if phase == "header exchange" else None
        return (
            message if sent is None else replace(sent, step=header.BINDING if to in (1, 3, 4) else 2).pack()
        )

    errors = joined(collector, (0,), lie=lie)
    for rank in (0, 1, 3, 4):
        assert isinstance(errors[rank], EquivocationError), errors[rank]
        assert errors[rank].ranks == (2,)
