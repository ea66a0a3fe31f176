"""What ranks tell one another before they collect, and who is named when one does not come."""

from __future__ import annotations

import numpy as np
import pytest

from horovod_byz.collect import (
    HeaderMismatchError,
    LateRanksError,
    header,
)
from horovod_byz.collect.header import Header
from horovod_byz.collect.watchdog import Watchdog


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

    def test_of_two_ranks_the_lower_one_is_believed(self):
        with pytest.raises(HeaderMismatchError) as error:
            header.check(self.received(self.BASE, Header(4, 100, 2, "float32", "root", b"r" * 16)))
        assert error.value.ranks == (1,)


class Board:
    """A side channel on which the other ranks stand where the test says."""

    def __init__(self, others):
        self.others, self.published = others, []

    def publish(self, position):
        self.published.append(position)

    def positions(self):
        return self.others


class TestWatchdog:
    def dog(self, others, rank=0, size=4):
        board = Board(others)
        dog = Watchdog(rank, size, board, 0.05)
        dog.begin(7)
        return dog, board

    def test_names_those_that_did_not_reach_this_wait(self):
        here = (7 + 2) * 2**20 + 1
        dog, board = self.dog({1: here, 2: here - 1, 3: here + 5})
        with pytest.raises(LateRanksError, match=r"gather of step 7 .* rank 2 did not arrive") as error:
            dog.wait(lambda: False, "gather")
        assert error.value.ranks == (2,)
        assert board.published == [-1, here]

    def test_a_rank_that_never_announced_is_late(self):
        dog, _ = self.dog({})
        with pytest.raises(LateRanksError, match="ranks 1, 2 and 3 did not arrive"):
            dog.wait(lambda: False, "gather")

    def test_says_so_when_all_arrived_or_nothing_is_known(self):
        dog, _ = self.dog(dict.fromkeys(range(4), 2**40))
        with pytest.raises(LateRanksError, match="all ranks arrived"):
            dog.wait(lambda: False, "gather")
        dog, _ = self.dog(None)
        with pytest.raises(LateRanksError, match="could not be learnt"):
            dog.wait(lambda: False, "gather")

    def test_a_short_wait_announces_nothing(self):
        dog, board = self.dog({})
        dog.wait(lambda: True, "gather")
        assert board.published == [-1]

    def test_a_broken_operation_names_the_absent(self):
        dog, _ = self.dog({1: 2**40, 2: 2**40})
        with pytest.raises(LateRanksError, match=r"broke off \(reset by peer\): rank 3") as error:
            dog.broke("gather", OSError("reset by peer\nand more"))
        assert isinstance(error.value.__cause__, OSError)

    def test_refuses_a_timeout_that_is_none(self):
        with pytest.raises(ValueError, match="positive number of seconds, got 0"):
            Watchdog(0, 1, Board({}), 0)
