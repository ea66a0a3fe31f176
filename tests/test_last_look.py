"""What a rank says when the launcher ends it: only ranks that are known to have failed are named."""

from __future__ import annotations

import pytest

from horovod_byz.collect import LateRanksError, termination
from horovod_byz.collect.channels import Silent
from horovod_byz.collect.last_look import last_look
from horovod_byz.collect.notice import Notice, State
from horovod_byz.collect.watchdog import Watchdog
from horovod_byz.host.place import Place
from horovod_byz.ledger import endings

SAID = Notice(0, State.WAITING, 5, 7, "gradient", "header exchange")


class Board:
    """A side channel on which the others say, at each reading, what `others` gives."""

    def __init__(self, signs_of_life=True, **others):
        self.signs_of_life, self.others, self.beat, self.published = signs_of_life, others, 0, []

    def publish(self, own):
        self.published.append(own.state)

    def read(self, ranks):
        self.beat += 1
        said = {int(name[1:]): self.notice(int(name[1:]), *said) for name, said in self.others.items()}
        return {rank: said[rank] for rank in ranks if rank in said}

    def notice(self, rank, state, lives=True, reason=""):
        return Notice(rank, state, self.beat if lives else 1, 7, "gradient", "start", reason)


def looked(board, size=4):
    return last_look(SAID, size, board, grace=0.1)


def test_a_rank_that_left_is_named_with_its_reason():
    finding = looked(Board(r1=(State.LEFT, True, "ValueError: x"), r2=(State.MOVING,), r3=(State.WAITING,)))
    assert finding.late == (1,)
    assert "ValueError: x" in finding.text


def test_a_rank_without_a_sign_of_life_is_named():
    assert looked(Board(r1=(State.MOVING, False), r2=(State.MOVING,), r3=(State.ALIVE,))).late == (1,)


def test_ranks_that_are_ended_like_this_one_are_not():
    """All are ended at once, as by a scheduler: those that ended first say that they still lived."""
    assert looked(Board(r1=(State.ALIVE, False), r2=(State.ALIVE, False), r3=(State.MOVING,))).late == ()


@pytest.mark.parametrize("state", [State.MOVING, State.WAITING])
def test_under_mpi_silence_proves_nothing(state):
    others = {"r1": (state, False), "r2": (State.MOVING, False), "r3": (state, False)}
    assert looked(Board(signs_of_life=False, **others)).late == ()
    assert looked(Board(signs_of_life=False, **{**others, "r2": (State.LEFT, False, "it ended")})).late == (
        2,
    )


def test_without_a_channel_nobody_is_named():
    assert looked(Silent()).late == ()


class TestLastWords:
    def watchdog(self, **others):
        watchdog = Watchdog(0, 3, Board(**others), 0.4)
        watchdog.places = (Place(0, (0,), "a"), Place(1, (1,), "b"), Place(2, (2,), "c"))
        watchdog.begin(7)
        return watchdog

    def test_a_rank_that_computes_names_nobody(self):
        watchdog = self.watchdog(r1=(State.LEFT, True, "ValueError: x"))
        reason, ranks = watchdog.last_words()
        assert ranks == ()
        assert reason == "the launcher ended this rank (SIGTERM) while it computed, after the start of step 7"
        assert watchdog._channel.published[-1] is State.ALIVE

    def test_a_rank_that_waits_names_the_host(self):
        watchdog = self.watchdog(r1=(State.LEFT, True, "ValueError: x"), r2=(State.MOVING,))
        said = []

        def ready():
            said.append(watchdog.last_words())
            return True

        watchdog.wait(ready, "header exchange")
        ((reason, ranks),) = said
        assert ranks == (1,)
        assert reason.endswith(
            "in the header exchange of step 7: rank 1 (host b) left or failed (ValueError: x)"
        )
        assert watchdog.last_words()[1] == ()  # the wait is over

    def test_a_rank_that_somebody_ended_first_is_not_accused(self):
        """As a scheduler ends a job: rank 1 heard it a moment earlier, so the operation broke off here."""
        watchdog = self.watchdog(r1=(State.ALIVE, True, termination.REASON), r2=(State.WAITING,))
        with pytest.raises(LateRanksError, match="it was ended by SIGTERM") as caught:
            watchdog.broke("header exchange", OSError("connection closed"))
        assert caught.value.ranks == (1,)  # elastic training goes on without it
        assert caught.value.certain == endings.accused(caught.value) == ()
        assert watchdog.last_words()[1] == ()

    def test_a_rank_that_died_first_is(self):
        watchdog = self.watchdog(r1=(State.LEFT, True, "ValueError: x"), r2=(State.WAITING,))
        with pytest.raises(LateRanksError) as caught:
            watchdog.broke("header exchange", OSError("connection closed"))
        assert caught.value.certain == endings.accused(caught.value) == (1,)
        assert watchdog.last_words()[1] == (1,)

    @pytest.mark.parametrize(("misses", "named"), [(3, (1,)), (4, ())])
    def test_a_store_that_misses_a_few_answers_is_asked_again(self, misses, named):
        watchdog = self.watchdog(r1=(State.LEFT, True, "ValueError: x"), r2=(State.WAITING,))
        read, answers = watchdog._channel.read, iter([None] * misses)
        watchdog._channel.read = lambda ranks: next(answers, ranks) and read(ranks)
        with pytest.raises(LateRanksError) as caught:
            watchdog.broke("header exchange", OSError("connection closed"))
        assert caught.value.ranks == named
