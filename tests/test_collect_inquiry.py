"""Who is late, from what the ranks announced."""

from __future__ import annotations

from announcements import at, table
from horovod_byz.collect.inquiry import Inquiry
from horovod_byz.collect.notice import Notice, State

WAITING, MOVING, RAISED = State.WAITING, State.MOVING, State.RAISED
LEFT, ALIVE = State.LEFT, State.ALIVE


def inquiry(own, first, last, size=4, **options):
    """What rank 0 finds, the announcements being `first` and then `last`."""
    asked = Inquiry(own, size, **options)
    asked.look(first)
    asked.look(last)
    return asked.finding()


class TestInquiry:
    """Rank 0 of four looks twice; whoever announces something in between lives."""

    TIMEOUT, BROKE = at(0, WAITING), at(0, RAISED)

    def test_names_who_neither_waits_nor_gave_up(self):
        first = table(at(1, WAITING, 1), at(3, WAITING, 1))
        last = table(at(1, WAITING, 2), at(3, WAITING, 2))
        answer = inquiry(self.TIMEOUT, first, last)
        assert answer.late == (2,)
        assert "rank 2 did not arrive: look for a crash" in answer.text

    def test_a_rank_that_waits_at_an_earlier_place_is_not_late(self):
        """Version 0.1: of two ranks that waited for a third, the one that was further accused the other.
        Cause: who had announced a lower position counted as late, whatever it did there."""
        behind = [Notice(1, WAITING, beat, 4, "gradient", "gather to the root") for beat in (1, 2)]
        answer = inquiry(self.TIMEOUT, table(behind[0], at(3, RAISED)), table(behind[1]))
        assert answer.late == (2,)

    def test_a_rank_that_froze_while_it_waited_is_late(self):
        frozen = at(2, WAITING, 9)
        first = table(at(1, WAITING, 1), frozen, at(3, WAITING, 1))
        last = table(at(1, WAITING, 2), frozen, at(3, WAITING, 2))
        answer = inquiry(self.TIMEOUT, first, last, signs_of_life=True)
        assert answer.late == (2,)
        assert "without a sign of life" in answer.text

    def test_a_rank_that_computes_is_late_at_a_timeout_and_excused_where_another_died(self):
        first = table(at(1, RAISED), at(2, MOVING, 1))
        last = table(at(2, MOVING, 2))
        late = inquiry(self.TIMEOUT, first, last, size=3, signs_of_life=True)
        assert late.late == (2,)
        assert "though its process lives" in late.text
        assert inquiry(self.BROKE, first, last, signs_of_life=True).late == (3,)

    def test_a_rank_that_left_explains_those_that_have_not_noticed(self):
        answer = inquiry(self.BROKE, table(at(3, LEFT, reason="ValueError: boom")), {})
        assert answer.late == (3,)
        assert "rank 3 left or failed (ValueError: boom)" in answer.text

    def test_the_messenger_is_not_named_but_the_rank_for_which_it_gave_up(self):
        gave_up = at(1, RAISED, blamed=(3,))
        answer = inquiry(self.BROKE, table(gave_up), {})  # rank 2 computes still, for longer than the grace
        assert answer.late == (3,)
        assert "rank 1 gave up as well" in answer.text

    def test_the_error_on_the_late_rank_names_itself(self):
        others = [at(rank, RAISED, blamed=(0,)) for rank in (1, 2, 3)]
        answer = inquiry(self.BROKE, table(*others), {})
        assert answer.late == (0,)
        assert "ranks 1, 2 and 3 gave up waiting for rank 0, this rank" in answer.text

    def test_a_rank_that_raised_at_an_earlier_step_and_did_not_come_back_is_late(self):
        stale = at(2, RAISED, step=4, reason="HeaderMismatchError: rank 1 ...", blamed=(1,))
        first = table(at(1, WAITING, 1), stale, at(3, WAITING, 1))
        answer = inquiry(self.TIMEOUT, first, table(at(1, WAITING, 2), at(3, WAITING, 2)))
        assert answer.late == (2,)
        assert "raised before (HeaderMismatchError: rank 1 ...)" in answer.text

    def test_a_rank_that_gave_up_at_the_end_of_the_step_before_is_not_late(self):
        """An operation may be complete on some ranks when it breaks off on others."""
        first = table(at(1, RAISED, step=4), at(2, RAISED))
        assert inquiry(self.BROKE, first, {}).late == (3,)
        assert inquiry(self.BROKE, table(at(1, RAISED, step=3), at(2, RAISED)), {}).late == (1, 3)

    def test_an_error_that_blames_a_rank_is_no_proof_against_it(self):
        first = table(at(1, WAITING, 1), at(2, RAISED, reason="EquivocationError: rank 1 ...", blamed=(1,)))
        answer = inquiry(self.TIMEOUT, first, table(at(1, WAITING, 2)), size=3)
        assert answer.late == ()
        assert "no rank is late: rank 2 raised an error (EquivocationError: rank 1 ...)" in answer.text

    def test_nobody_is_named_where_all_are_there(self):
        first = table(at(1, WAITING, 1), at(2, RAISED), at(3, ALIVE))
        answer = inquiry(self.TIMEOUT, first, table(at(1, WAITING, 2)))
        assert answer.late == ()
        assert "all ranks are there" in answer.text

    def test_the_error_lists_ranks_that_wait_for_different_things_and_names_none_as_late(self):
        elsewhere = [Notice(1, WAITING, beat, 5, "buffers", "header exchange") for beat in (1, 2)]
        answer = inquiry(self.TIMEOUT, table(elsewhere[0]), table(elsewhere[1]), size=2)
        assert answer.late == ()
        assert "rank 0: the header exchange of step 5 (gradient); rank 1: " in answer.text

    def test_one_rank_alone_accuses_nobody(self):
        assert inquiry(self.BROKE, {}, {}, size=1).late == ()
