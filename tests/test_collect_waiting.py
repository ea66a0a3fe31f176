"""What ranks announce to one another before they collect, and who is named when one does not come."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import horovod_byz as hb
from announcements import Board, at, table
from horovod_byz.collect import (
    EquivocationError,
    HeaderMismatchError,
    LateRanksError,
    departure,
    header,
)
from horovod_byz.collect.header import Header
from horovod_byz.collect.notice import State
from horovod_byz.collect.watchdog import Watchdog

WAITING, MOVING, RAISED = State.WAITING, State.MOVING, State.RAISED
LEFT = State.LEFT


class TestHeader:
    BASE = Header(3, 100, 2, "float32", "root", b"r" * 16, b"d" * 16)

    def received(self, *headers):
        return np.stack([h.pack() if isinstance(h, Header) else h for h in headers])

    def test_round_trip(self):
        assert header.unpack(self.BASE.pack()) == self.BASE
        assert self.BASE.pack().size == header.SIZE

    def test_names_the_odd_rank_and_its_fault(self):
        odd = Header(3, 99, 2, "float64", "root", b"r" * 16)
        with pytest.raises(
            HeaderMismatchError, match=r"rank 1: length 99 where most have 100, dtype"
        ) as error:
            header.check(self.received(self.BASE, odd, self.BASE))
        assert error.value.ranks == (1,)

    def test_names_a_rank_that_brings_other_rows_than_it_was_bound_with(self):
        with pytest.raises(HeaderMismatchError, match="rank 0: rows 2 where 3 were bound"):
            header.check(self.received(self.BASE, self.BASE), rows=(3, 2))

    def test_names_a_rank_whose_header_cannot_be_read(self):
        with pytest.raises(HeaderMismatchError, match="rank 1: unreadable"):
            header.check(self.received(self.BASE, np.zeros(header.SIZE, np.uint8), self.BASE))

    @pytest.mark.parametrize("times", [1, 2])
    def test_without_a_majority_nobody_is_named(self, times):
        """Of two ranks, the one that is at an earlier step may be the one that skipped."""
        other = Header(4, 100, 2, "float32", "root", b"s" * 16)
        with pytest.raises(HeaderMismatchError) as error:
            header.check(self.received(*[self.BASE] * times, *[other] * times))
        assert error.value.ranks == ()
        first, second = ("rank 0", "rank 1") if times == 1 else ("ranks 0 and 1", "ranks 2 and 3")
        shared = "another rule, parameters, policy or the ledger's history"
        assert f"({first}: step 3, {shared}; {second}: step 4, {shared})" in str(error.value)
        assert "no majority says whose are right" in str(error.value)

    def test_a_plurality_is_no_majority(self):
        others = [Header(step, 100, 2, "float32", "root", b"r" * 16) for step in (4, 5)]
        with pytest.raises(HeaderMismatchError) as error:
            header.check(self.received(self.BASE, self.BASE, *others))
        assert error.value.ranks == ()

    def test_of_two_ranks_the_one_that_cannot_be_read_is_named(self):
        with pytest.raises(HeaderMismatchError) as error:
            header.check(self.received(np.zeros(header.SIZE, np.uint8), self.BASE))
        assert error.value.ranks == (0,)


class Dumb(Board):
    def read(self, ranks):
        return None


class TestWatchdog:
    def dog(self, board, size=4):
        dog = Watchdog(0, size, board, 0.05, session="gradient")
        dog.begin(7)
        return dog

    def states(self, board):
        return [announced.state for announced in board.published]

    def test_says_that_it_waits_and_then_whom_it_gave_up_on(self):
        board = Board(at(1, WAITING), at(3, WAITING))
        with pytest.raises(LateRanksError, match=r"gather of step 7 .* rank 2 did not arrive") as error:
            self.dog(board).wait(lambda: False, "gather")
        assert error.value.ranks == (2,)
        assert self.states(board)[0] is MOVING
        assert set(self.states(board)[1:-1]) == {WAITING}
        assert board.published[-1].blamed == (2,)
        assert board.published[-1].state is RAISED
        assert board.published[-1].place == "the gather of step 7"
        beats = [announced.beat for announced in board.published]
        assert beats == sorted(set(beats))

    def test_a_rank_that_never_announced_is_late(self):
        with pytest.raises(LateRanksError, match="ranks 1, 2 and 3 did not arrive"):
            self.dog(Board()).wait(lambda: False, "gather")

    def test_says_so_when_nothing_is_known(self):
        with pytest.raises(LateRanksError, match="could not be learnt") as error:
            self.dog(Dumb()).wait(lambda: False, "gather")
        assert error.value.ranks == ()

    def test_a_short_wait_announces_nothing(self):
        board = Board()
        self.dog(board).wait(lambda: True, "gather")
        assert self.states(board) == [MOVING]

    def test_a_long_wait_that_succeeds_is_announced_as_over(self):
        board = Board()
        done = iter([False] * 20 + [True])
        dog = self.dog(board)
        dog.patience = 0.001
        dog.wait(lambda: next(done), "gather")
        assert self.states(board)[-2:] == [WAITING, MOVING]

    def test_an_operation_that_is_done_while_the_rank_asks_who_is_late_is_no_error(self):
        board, reads = Board(), []
        dog = self.dog(board)
        board.read = lambda ranks: reads.append(ranks) or {}
        dog.wait(lambda: len(reads) > 1, "gather")
        assert self.states(board)[-1] is MOVING

    def test_a_broken_operation_names_the_absent(self):
        with pytest.raises(LateRanksError, match=r"broke off \(reset by peer\): rank 3") as error:
            self.dog(Board(at(1, RAISED, step=6), at(2, RAISED, step=7))).broke(
                "gather", OSError("reset by peer\nand")
            )
        assert isinstance(error.value.__cause__, OSError)

    def test_a_rank_that_comes_after_the_broken_operation_is_not_named(self):
        """Version 0.1: a rank that arrived 0.4 s after another had crashed was accused with it. Cause: all
        who had announced nothing within the patience of the first to notice counted as late."""
        board, reads = Board(), []

        def read(ranks):
            reads.append(ranks)
            return table(at(1, RAISED, step=7)) if len(reads) > 2 else {}

        board.read = read
        with pytest.raises(LateRanksError) as error:
            self.dog(board, size=3).broke("gather", OSError())
        assert error.value.ranks == (2,)

    def test_errors_of_a_step_are_announced_and_forgotten_at_the_next(self):
        board = Board()
        dog = self.dog(board)
        dog.failed(EquivocationError("rank 2 lied. Much more", [2]))
        assert (board.published[-1].state, board.published[-1].blamed) == (RAISED, (2,))
        assert board.published[-1].reason == "EquivocationError: rank 2 lied"
        dog.begin(8)
        assert board.published[-1].state is MOVING
        dog.failed(TypeError("rows must be"))
        assert board.published[-1].state is LEFT

    def test_a_rank_that_gave_up_does_not_seem_to_be_the_first_to_leave(self):
        board = Board()
        dog = self.dog(board)
        dog.failed(EquivocationError("x", [2]))
        dog.leave("its script ended")
        dog.live()
        dog.survive()
        assert board.published[-1].state is RAISED

    def test_refuses_an_invalid_timeout(self):
        with pytest.raises(ValueError, match="positive number of seconds, got 0"):
            Watchdog(0, 1, Board(), 0)


class Shared:
    """A side channel for ranks that are threads of this process."""

    signs_of_life = False

    def __init__(self, entries):
        self.entries = entries

    def publish(self, own):
        self.entries[own.rank] = own

    def read(self, ranks):
        return {rank: self.entries[rank] for rank in ranks if rank in self.entries}


class TestRanksThatWait:
    """Several watchdogs at once; what each rank's error names."""

    def job(self, size, act):
        entries = {}

        def run(rank):
            dog = Watchdog(rank, size, Shared(entries), 0.4, session="gradient")
            dog.begin(5)
            try:
                act(rank, dog)
            except LateRanksError as error:
                return error.ranks
            return None

        with ThreadPoolExecutor(size) as pool:
            return list(pool.map(run, range(size)))

    def test_ranks_that_wait_at_different_places_name_who_skipped_the_step(self):
        def act(rank, dog):
            if rank != 2:
                dog.wait(lambda: False, ["gather to the root", "hand-out of the result"][rank == 1])

        assert self.job(4, act) == [(2,), (2,), None, (2,)]

    def test_ranks_that_come_later_name_the_rank_that_died_too(self):
        broken = threading.Event()

        def act(rank, dog):
            if rank == 3:
                broken.set()
                return
            broken.wait(5)
            time.sleep([0, 0.1, 0.2][rank])  # within the grace of 0.3 s
            dog.broke("gather", ConnectionError("a peer closed the connection"))

        assert self.job(4, act) == [(3,), (3,), (3,), None]

    def test_the_late_rank_that_comes_in_the_end_names_itself(self):
        gone = threading.Barrier(3)

        def act(rank, dog):
            try:
                if rank != 2:
                    dog.wait(lambda: False, "gather")
            finally:
                gone.wait(20)
            dog.broke("gather", ConnectionError("Horovod has been shut down"))

        assert self.job(3, act) == [(2,), (2,), (2,)]


class TestLeaving:
    @pytest.fixture
    def board(self, monkeypatch):
        board = Board()
        monkeypatch.setattr(departure._Process, "current", None)
        Watchdog(0, 2, board, 1.0).begin(7)
        return board

    def test_a_rank_says_that_its_script_ended(self, board, monkeypatch):
        monkeypatch.delattr("sys.last_value", raising=False)
        departure._leave(os.getpid())
        assert board.published[-1].state == LEFT
        assert board.published[-1].reason.startswith("its script ended; do all ranks take the same number")

    def test_a_rank_says_which_exception_ended_its_script(self, board, monkeypatch):
        monkeypatch.setattr("sys.last_value", ValueError("boom\nand more"), raising=False)
        departure._leave(os.getpid())
        assert board.published[-1].reason == "ValueError: boom"

    def test_a_forked_process_that_ends_is_no_rank_that_leaves(self, board):
        departure._leave(os.getpid() + 1)
        assert board.published[-1].state is MOVING


class TestAStepThatARankSkips:
    def optimizer(self, **options):
        layer = torch.nn.Linear(3, 1)
        return layer, hb.DistributedOptimizer(torch.optim.SGD(layer.parameters(), lr=0.1), **options)

    def backward(self, layer):
        layer(torch.ones(2, 3)).sum().backward()

    def test_counts_so_that_the_next_header_differs(self):
        """Version 0.1: a rank that skipped a step alone was noticed when the others waited for it at the end
        of the run. Cause: the number of a step counted the exchanges, not what the rank had computed."""
        layer, optimizer = self.optimizer()
        steps = []
        for skip in (False, True, True, False):
            optimizer.zero_grad()
            self.backward(layer)
            if not skip:
                optimizer.step()
                steps.append(optimizer.last.step)
        assert steps == [0, 3]

    def test_only_a_step_counts(self):
        layer, optimizer = self.optimizer(backward_passes_per_step=2)
        for _ in range(3):
            optimizer.zero_grad()
            optimizer.zero_grad()
            self.backward(layer)
            optimizer.zero_grad()  # half of the backward passes of a step
            self.backward(layer)
            self.backward(layer)
            optimizer.synchronize()
            with optimizer.skip_synchronize():
                optimizer.step()
        assert optimizer.last.step == 2
