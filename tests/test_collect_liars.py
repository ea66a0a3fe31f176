"""Ranks that lie about what they received, or send what cannot be read: the job goes on, or names the liar.

Version 0.1.0: a rank that only complained ended a `Sharded(replicas=3)` job without a name, and made every
honest row count as rewritten in symmetric mode; statistics of length zero ended in a RecursionError. Cause:
complaints had no limit, and lengths were believed.
"""

from __future__ import annotations

import numpy as np
import pytest

import horovod_byz as hb
from horovod_byz.aggregation.tiles import nodes, shards
from horovod_byz.collect import (
    EquivocationError,
    HeaderMismatchError,
    Root,
    Sharded,
    Symmetric,
    TransportError,
    header,
    partials,
)
from horovod_byz.collect.digest import SIZE as DIGEST
from horovod_byz.collect.protocol import HEADER_EXCHANGE
from horovod_byz.collect.session import Job
from horovod_byz.kernels.rows import TILE
from thread_ranks import AT, collect, matrix, on_ranks_that_fail, value

SIZE, LIAR, D = 5, 1, 30_000
LONG = 90_001  # a root's result of this length is gathered in pieces
HONEST = [rank for rank in range(SIZE) if rank != LIAR]
ROWS = matrix(SIZE, D)
RULE = hb.Krum(f=1)
ABOUT = "check of the digests"


def on_liars(collector, lie, liars=(LIAR,), rule=RULE):
    """What each of five ranks collects or raises while some of them lie after they were bound."""

    def work(transport):
        session = collector.session(Job(transport, D, np.float32))
        if transport.rank in liars:
            transport.lie = lie
        return session.step(ROWS[transport.rank : transport.rank + 1], rule)

    return on_ranks_that_fail(SIZE, work)


def honest(results):
    return [results[rank] for rank in HONEST]


def changing(phase_of_lie, change):
    """A lie in one phase: `change(message, to)`, on a copy, in place."""

    def lie(phase, message, to):
        if phase == phase_of_lie:
            message = change(message.copy(), to)
        return message

    return lie


def complaining(about, first=SIZE * DIGEST):
    """Complains about some ranks' rows in the statement of `relay`."""

    def change(message, to):
        message[first + np.asarray(about)] = 1
        return message

    return changing(ABOUT, change)


class TestComplaintsAboutRows:
    @pytest.mark.parametrize("collector", [Symmetric(), Sharded()], ids=repr)
    @pytest.mark.parametrize("about", [range(SIZE), (0, 2, 3), (0, 3, 4)], ids=str)
    def test_one_complainer_does_not_make_honest_rows_count_as_rewritten(self, collector, about):
        for result in honest(on_liars(collector, complaining(about))):
            np.testing.assert_array_equal(value(result), RULE(ROWS))
            assert result.rewritten == ()
            assert result.complainers == (LIAR,)

    def test_the_ledger_has_the_complainer_and_no_victims(self):
        ledger = hb.Ledger()
        for result in honest(on_liars(Symmetric(), complaining(range(SIZE)))):
            ledger.add(result)
        report = ledger.report()
        assert [account["rewritten"] for account in report["workers"]] == [0] * SIZE
        assert report["complainers"] == {"1": 4}
        again = hb.Ledger()
        again.load_state_dict(ledger.state_dict())
        assert again.report() == report

    def test_two_complainers_confirm_one_another(self):
        for rank, result in enumerate(on_liars(Symmetric(), complaining([0, 2, 3]), liars=(1, 4))):
            if rank not in (1, 4):
                assert (result.rewritten, result.complainers) == ((0, 2, 3), ())

    def test_a_complaint_about_oneself_counts_for_nothing(self):
        for result in honest(on_liars(Symmetric(), complaining([LIAR]))):
            assert (result.rewritten, result.complainers) == ((), ())

    def test_a_victim_that_complains_alone_about_one_row_is_believed(self):
        def prepare(transport):
            if transport.rank == 2:
                transport.tamper = lambda out: out[:10].fill(666.0)

        for result in collect(Symmetric(), RULE, ROWS, (1,) * SIZE, prepare=prepare):
            np.testing.assert_array_equal(value(result), RULE(ROWS))
            assert (result.rewritten, result.complainers) == ((0,), (2,))


class TestComplaintsAboutResults:
    """Sharded(replicas=3)."""

    @pytest.mark.parametrize("role", [0, 2, 3, 200, 254], ids=str)
    def test_a_rank_that_only_complains_is_named_and_not_waited_for(self, role):
        def change(message, to):
            message[:] = role
            return message

        for result in honest(on_liars(Sharded(replicas=3), changing(ABOUT, change))):
            np.testing.assert_array_equal(value(result), RULE(ROWS))
            assert (result.outvoted_ranks, result.complainers) == ((), (LIAR,))

    def test_a_rank_that_is_served_once_and_content_then_is_not_named(self):
        once = []

        def change(message, to):
            if len(once) < SIZE:
                once.append(to)
                message[:] = 1
            return message

        for result in honest(on_liars(Sharded(replicas=3), changing(ABOUT, change))):
            np.testing.assert_array_equal(value(result), RULE(ROWS))
            assert result.complainers == ()

    def test_a_victim_is_served_while_another_only_complains(self):
        def change(message, to):
            message[:] = 1
            return message

        def work(transport):
            session = Sharded(replicas=3).session(Job(transport, D, np.float32))
            if transport.rank == LIAR:
                transport.lie = changing(ABOUT, change)
            if transport.rank == 3:
                transport.tamper = lambda out: out.fill(666.0)
            return session.step(ROWS[transport.rank : transport.rank + 1], RULE)

        for result in honest(on_ranks_that_fail(SIZE, work)):
            np.testing.assert_array_equal(value(result), RULE(ROWS))
            assert result.complainers == (LIAR,)


def with_length(length, keep=True):
    """Statistics whose first array says another length than it should, with or without its values."""

    def change(message, to):
        said = np.frombuffer(np.array([length], np.int64).tobytes(), np.uint8)
        return np.concatenate([said, message[8:] if keep else message[:0]])

    return changing("exchange of statistics", change)


LENGTHS = [(0, False), (0, True), (-1, True), (-(2**62), True), (1, True), (2**31, True), (2**62, True)]


class TestStatistics:
    @pytest.mark.parametrize(("length", "keep"), LENGTHS)
    @pytest.mark.parametrize("rule", [RULE, hb.GeometricMedian(), hb.Bulyan(f=0)], ids=repr)
    def test_another_length_than_the_shard_has_names_its_sender(self, rule, length, keep):
        # 30000 coordinates in five shards: the liar's has more than one node of the tree.
        errors = on_liars(Sharded(), with_length(length, keep), rule=rule)
        for error in honest(errors):
            assert isinstance(error, TransportError), error
            assert error.ranks == (LIAR,)
            assert f"rank 1 {AT} sent " in str(error)

    @pytest.mark.parametrize(("length", "keep"), LENGTHS)
    def test_with_replicas_it_loses_the_vote(self, length, keep):
        for result in honest(on_liars(Sharded(replicas=3), with_length(length, keep))):
            np.testing.assert_array_equal(value(result), RULE(ROWS))
            assert result.outvoted_ranks == (LIAR,)

    def test_lengths_are_those_that_ranks_bring(self):
        for d in (0, 1, TILE, 5 * TILE + 1, 100 * TILE):
            want = [max(1, len(nodes(begin, end, d))) for begin, end in shards(d, 7)]
            assert partials.lengths(shards(d, 7), d) == want

    def test_shapes_whose_sizes_wrap_around(self):
        mine = np.zeros((2, 4))
        for length in (2**62, 2**61, -(2**61), 2**63 - 1):
            data = np.frombuffer(np.array([length], np.int64).tobytes(), np.uint8)
            with pytest.raises(TransportError, match="ranks 2 and 3 sent statistics that cannot be read"):
                partials.unpack(data, mine, (2, 3))


def of_length(length):
    """A message of another length: cut, or filled up with zeros."""

    def change(message, to):
        return (
            np.resize(message, length)
            if length <= len(message)
            else np.pad(message, (0, length - len(message)))
        )

    return change


# Every exchange of fixed-size messages: who collects, and in which phase.
EXCHANGES = [
    (Symmetric(), "header exchange"),
    (Symmetric(), ABOUT),
    (Root(), "hand-out of the verdicts"),
    (Sharded(), "digests of the results"),
    (Sharded(), ABOUT),
    (Sharded(replicas=3), "digests of the results"),
    (Sharded(replicas=3), ABOUT),
]


class TestLengths:
    """0.2.0 over Horovod: a message that was too long ended in "Trying to resize storage", without a name."""

    @pytest.mark.parametrize(("collector", "phase"), EXCHANGES, ids=str)
    @pytest.mark.parametrize("length", [0, 1, 5000])
    def test_a_message_of_another_length_names_its_sender(self, collector, phase, length):
        for error in honest(on_liars(collector, changing(phase, of_length(length)))):
            assert isinstance(error, HeaderMismatchError), error
            assert error.ranks == (LIAR,)
            assert f"sent another length in the {phase} (rank 1: {length} elements, not" in str(error)

    @pytest.mark.parametrize("length", [0, 1, 5000])
    def test_also_while_ranks_bind(self, length):
        def work(transport):
            if transport.rank == LIAR:
                transport.lie = changing("check of the headers", of_length(length))
            return Symmetric().session(Job(transport, D, np.float32))

        for error in honest(on_ranks_that_fail(SIZE, work)):
            assert isinstance(error, HeaderMismatchError), error
            assert error.ranks == (LIAR,)

    @pytest.mark.parametrize(
        ("collector", "phase"), [*EXCHANGES, (Sharded(), "exchange of statistics")], ids=str
    )
    def test_a_message_that_does_not_fit_gets_no_memory(self, collector, phase):
        for error in honest(on_liars(collector, changing(phase, of_length(10**6)))):
            assert isinstance(error, TransportError), error
            assert f"sent more than they should in the {phase}" in str(error)

    @pytest.mark.parametrize("length", [0, 8, 5000])
    def test_statistics_of_another_length_lose_the_vote_or_name_their_sender(self, length):
        lie = changing("exchange of statistics", of_length(length))
        for error in honest(on_liars(Sharded(), lie)):
            assert isinstance(error, HeaderMismatchError), error
            assert error.ranks == (LIAR,)
        for result in honest(on_liars(Sharded(replicas=3), lie)):
            np.testing.assert_array_equal(value(result), RULE(ROWS))
            assert result.outvoted_ranks == (LIAR,)

    @pytest.mark.parametrize("collector", [Sharded(), Sharded(replicas=3)], ids=repr)
    @pytest.mark.parametrize("rule", [RULE, hb.GeometricMedian(), hb.BrSGD()], ids=repr)
    def test_room_is_made_for_the_longest_statistics_and_no_more(self, collector, rule):
        def work(transport):
            session = collector.session(Job(transport, D, np.float32))
            asked, exchange = [], transport.exchange_any

            def noted(message, phase, most):
                asked.append((len(message), most))
                return exchange(message, phase, most)

            transport.exchange_any = noted
            session.step(ROWS[transport.rank : transport.rank + 1], rule)
            return asked

        every = on_ranks_that_fail(SIZE, work)
        for step in zip(*every, strict=True):
            (most,), longest = {most for _, most in step}, max(length for length, _ in step)
            assert longest <= most <= (longest if collector == Sharded() else 2 * longest)


class TestRoot:
    @pytest.mark.parametrize("part", ["value", "report"])
    def test_a_result_that_has_not_its_digest_names_the_root(self, part):
        """A root that is disturbed: what it hands out is not what it stated."""

        def work(transport):
            session = Root().session(Job(transport, D, np.float32))
            if part == "report" and transport.rank == 0:
                transport.lie = changing("hand-out of the verdicts", lambda m, to: flip(m))
            if part == "value" and transport.rank == 3:
                hand_out = transport.hand_out

                def disturbed(value):
                    hand_out(value)
                    value[7] += 1

                transport.hand_out = disturbed
            return session.step(ROWS[transport.rank : transport.rank + 1], RULE)

        results = on_ranks_that_fail(SIZE, work)
        for rank in (3,) if part == "value" else range(1, SIZE):
            assert isinstance(results[rank], EquivocationError), results[rank]
            assert results[rank].ranks == (0,)

    @pytest.mark.parametrize("tampered", [False, True])
    def test_a_long_result_is_gathered_in_pieces_and_checked(self, tampered):
        """Rank 4 complains about all pieces without a reason; to rank 2 all arrive rewritten."""
        rows = np.random.default_rng(5).standard_normal((SIZE, LONG)).astype(np.float32)
        sent = []

        def work(transport):
            session = Root().session(Job(transport, LONG, np.float32))
            transport.hand_out = None  # not used
            alltoall, exchange = transport.alltoall, transport.exchange

            def counting(send, splits, out, expected, phase):
                sent.append((transport.rank, phase, sum(splits)))
                alltoall(send, splits, out, expected, phase)

            def complaining(message, phase):
                return exchange(np.ones_like(message) if phase == "check of the digests" else message, phase)

            transport.alltoall = counting
            if transport.rank == 2 and tampered:
                transport.tamper = lambda out: out.__iadd__(1)
            if transport.rank == 4:
                transport.exchange = complaining
            return session.step(rows[transport.rank : transport.rank + 1], RULE)

        for result in on_ranks_that_fail(SIZE, work):
            np.testing.assert_array_equal(value(result), RULE(rows))
            # Either confirms the other, but about the piece of the other itself.
            assert result.complainers == ((2, 4) if tampered else (4,))
        first = [count for rank, phase, count in sent if (rank, phase) == (0, "scatter of the result")]
        again = [
            count for rank, phase, count in sent if (rank, phase) == (0, "direct exchange of the result")
        ]
        assert first == [LONG]
        assert sum(again) == (2 if tampered else 1) * LONG

    def test_a_root_that_sends_other_pieces_than_it_stated_is_named(self):
        def work(transport):
            session = Root().session(Job(transport, LONG, np.float32))
            if transport.rank == 0:
                alltoall = transport.alltoall

                def disturbed(send, splits, out, expected, phase):
                    alltoall(send + 1 if "result" in phase else send, splits, out, expected, phase)

                transport.alltoall = disturbed
            return session.step(np.ones((1, LONG), np.float32), RULE)

        for error in on_ranks_that_fail(SIZE, work)[1:]:
            assert isinstance(error, EquivocationError), error
            assert error.ranks == (0,)


def flip(message):
    message[-1] ^= 1
    return message


class TestAggregators:
    """`Sharded(replicas=3)`: an aggregator that lies is outvoted, and stands in the ledger as a proof."""

    @pytest.mark.parametrize("phase", ["exchange of statistics", "digests of the results"])
    def test_it_is_outvoted_and_proven_wrong_while_nobody_else_is(self, phase):
        for result in honest(on_liars(Sharded(replicas=3), changing(phase, lambda m, to: flip(m)))):
            np.testing.assert_array_equal(value(result), RULE(ROWS))
            ledger = hb.Ledger()
            ledger.add(result)
            proofs = [(e.reason, e.rank, e.worker) for e in ledger.evidence if e.kind == "proof"]
            assert ("aggregate", LIAR, None) in proofs
            assert {rank for reason, rank, _ in proofs if reason == "aggregate"} == {LIAR}

    @pytest.mark.parametrize(("collector", "about"), [(Symmetric(), [0, 2, 3]), (Sharded(), [0, 2, 3, 4])])
    def test_a_false_complaint_is_a_notice_of_the_complainer(self, collector, about):
        for result in honest(on_liars(collector, complaining(about))):
            ledger = hb.Ledger()
            ledger.add(result)
            notices = [(e.reason, e.rank) for e in ledger.evidence if e.kind == "notice"]
            assert ("complaint", LIAR) in notices
            assert "altered in transit" not in {reason for reason, _ in notices}


class TestEquivocation:
    def test_a_sender_of_many_digests_is_named_alone(self):
        def change(message, to):
            message[-1] ^= to
            return message

        for error in honest(on_liars(Symmetric(), changing("header exchange", change))):
            assert isinstance(error, EquivocationError), error
            assert error.ranks == (LIAR,)

    @pytest.mark.parametrize("collector", [Symmetric(), Sharded()], ids=repr)
    def test_a_reporter_that_lies_about_the_others_is_named_alone(self, collector):
        def change(message, to):
            message[: SIZE * DIGEST] ^= 1
            return message

        for error in honest(on_liars(collector, changing(ABOUT, change))):
            assert isinstance(error, EquivocationError), error
            assert error.ranks == (LIAR,)
            assert f"rank 1 {AT} gave different ranks different digests of rows, or lied about" in str(error)

    def test_one_contradiction_names_both_sides(self):
        def change(message, to):
            message[3 * DIGEST] ^= 1
            return message

        for error in honest(on_liars(Symmetric(), changing(ABOUT, change))):
            assert isinstance(error, EquivocationError), error
            assert error.ranks == (LIAR, 3)
            assert f"ranks 1 and 3 {AT} contradict one another" in str(error)


class TestStates:
    """A rank that gave different ranks different digests of its state ended in a time-out."""

    @pytest.mark.parametrize("collector", [Symmetric(), Root(), Sharded(), Sharded(replicas=3)])
    @pytest.mark.parametrize(
        ("told", "named", "doubtful"),
        [((0, 2, 3), (LIAR,), ()), ((0,), (0, LIAR), (0, LIAR))],  # of two, nobody knows which lies
    )
    def test_it_is_named(self, collector, told, named, doubtful):
        offset = header._RECORD.fields["state"][1]

        def change(message, to):
            if to in told:
                message[offset] ^= 1
            return message

        def work(transport):
            session = collector.session(Job(transport, D, np.float32))
            if transport.rank == LIAR:
                transport.lie = changing(HEADER_EXCHANGE, change)
            return session.step(ROWS[transport.rank : transport.rank + 1], RULE, state=bytes(range(DIGEST)))

        for error in honest(on_ranks_that_fail(SIZE, work)):
            assert isinstance(error, EquivocationError)
            assert (error.ranks, error.doubtful) == (named, doubtful)
            assert "digests of their state" in str(error)
