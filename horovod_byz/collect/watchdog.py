"""Bounds every wait between ranks and names the ranks that kept the others waiting.

The stall check of Horovod 0.28.1 as released never fires on Gloo (`gloo_controller.cc` reserves where it must
resize), and under MPI a stopped rank hangs all others for ever. A collective cannot find the late rank, since
it would need that rank. So a rank that has waited for a while announces on a side channel, at regular
intervals, that it waits; a rank that gives up announces that; and a rank that must name the late ranks reads
the announcements; see `inquiry`.
"""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from horovod_byz.collect import departure
from horovod_byz.collect.channels import Channel
from horovod_byz.collect.errors import LateRanksError, TransportError, located, names
from horovod_byz.collect.inquiry import Finding, Inquiry
from horovod_byz.collect.last_look import last_look
from horovod_byz.collect.notice import Notice, State, place
from horovod_byz.host.place import Place

_FIRST_SLEEP, _LONGEST_SLEEP = 2e-5, 1e-3
# Largest number of announcements per second to the launcher's store, all ranks together.
_PER_SECOND = 25
# Announcements that a rank may miss before it counts as gone.
_MISSED = 3
_FINAL = (State.RAISED, State.LEFT)

# Over all sessions of this process, so that a later announcement always has a higher number.
_BEATS = itertools.count()

Method = TypeVar("Method", bound=Callable[..., Any])


class Watchdog:
    """Polls until an operation is done, or raises an error that names the late ranks.

    Args:
        rank: this rank.
        size: number of ranks.
        channel: the side channel for announcements.
        timeout: seconds that one wait may take.
        error: class of the error to raise.
        session: name of the session.

    Attributes:
        timeout: seconds that one wait may take.
        patience: seconds after which a waiting rank announces that it waits.
        interval: seconds between the announcements of a rank.
        grace: seconds within which a rank must announce itself, or be named.
        places: where the ranks run, once they are bound.
        inquiring: whether it now looks for the late ranks, or has named them.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        channel: Channel,
        timeout: float,
        error: type[LateRanksError] = LateRanksError,
        session: str = "",
    ) -> None:
        if not timeout > 0:
            raise ValueError(f"timeout must be a positive number of seconds, got {timeout}")
        self.timeout = timeout
        self.patience = min(1.0, timeout / 4)
        self.interval = max(self.patience, size / _PER_SECOND)
        self.grace = _MISSED * self.interval
        self.inquiring = False
        self._size, self._channel, self._error = size, channel, error
        self.places: tuple[Place, ...] = ()
        self._said = Notice(rank, State.MOVING, session=session[:32])
        self._speaking = threading.RLock()  # other threads give signs of life
        self._step, self._phase, self._waits = -1, "start", False
        self._say(State.MOVING)  # so that a rank that dies before its first wait has announced itself

    def begin(self, step: int) -> None:
        """Marks the start of a step."""
        self._step, self._phase, self._waits, self.inquiring = step, "start", False, False
        self._channel.read(())  # under MPI: receives messages, which would accumulate
        if self.over or departure.is_over():  # the script has recovered from it
            self._say(State.MOVING)

    def wait(self, ready: Callable[[], bool], phase: str) -> None:
        """Returns when `ready()` is true.

        Raises:
            LateRanksError: if that took longer than the timeout.
        """
        self._phase, self._waits = phase, True
        # Most waits end within `patience`, and need no announcement.
        if not self._poll(ready, self.patience):
            finding = self._linger(ready)
            if finding is not None:
                self._raise(f"{self._place} was not complete after {self.timeout:.3g} s", finding)
            self._say(State.MOVING)
        self._waits = False

    def broke(self, phase: str, cause: Exception) -> NoReturn:
        """Names the ranks at fault when an operation failed.

        Raises:
            LateRanksError: always.
        """
        self._phase, self._waits = phase, True
        finding = self._inquire()
        assert finding is not None
        self._raise(f"{self._place} broke off ({_first_sentence(cause)})", finding, cause)

    def ended(self, phase: str, why: str, reason: str = "it shut Horovod down") -> TransportError:
        """The error for an operation after this process shut its transport down; no rank is late.

        Args:
            phase: the operation that cannot begin.
            why: what happened, and the remedy.
            reason: what the other ranks read.
        """
        self._phase = phase
        self.leave(reason)
        return TransportError(f"{self._place} cannot begin: {why}")

    @property
    def said(self) -> Notice:
        """This rank's last announcement."""
        return self._said

    def refused(self, phase: str, why: str, gave_up: Notice, error: type[TransportError]) -> TransportError:
        """The error for an operation that may not begin, because this rank gave up an earlier one.

        Repeats the announcement of that time, since this rank has begun another step meanwhile: the others
            then
        learn for which ranks it gave up, and do not count it as late.

        Args:
            phase: the operation that may not begin.
            why: the reason, and the remedy.
            gave_up: this rank's announcement when it gave up.
            error: class of the error to return.
        """
        refusal = error(f"{place(self._step, phase)} cannot begin: {why}")
        with self._speaking:
            self._step, self._phase = gave_up.step, gave_up.phase
            if gave_up.state in _FINAL:
                self._say(gave_up.state, gave_up.reason, gave_up.blamed)
            else:
                self._say(State.LEFT, f"it stopped waiting for {gave_up.place}")
        return refusal

    def failed(self, error: BaseException) -> None:
        """Announces that this rank's step ended with an error, for those that will miss it."""
        if self.over:
            return  # announced already
        reason = f"{type(error).__name__}: {_first_sentence(error)}" if str(error) else type(error).__name__
        if isinstance(error, TransportError):
            self._say(State.RAISED, reason, error.ranks)
        else:
            self._say(State.LEFT, reason)

    def leave(self, reason: str) -> None:
        """Announces that this rank leaves the job, unless it announced before that it gave up or left."""
        with self._speaking:
            if not self.over:
                self._say(State.LEFT, reason)

    def live(self) -> None:
        """Repeats this rank's last announcement, as a sign of life."""
        with self._speaking:
            if not self.over:
                self._say(self._said.state)

    def survive(self, reason: str = "") -> None:
        """Announces that this rank still runs although the job ended while it computed, or why it ends."""
        with self._speaking:
            if not self.over:
                self._say(State.ALIVE, reason)

    def last_words(self) -> tuple[str, tuple[int, ...]]:
        """Says, when the launcher ends this process, where it was, and which ranks are known to have failed.

        It then ends all ranks that still run, which is no fault of theirs: only a rank that said that it
        left, or that gave no sign of life while this one waited, is named.
        """
        what = "the launcher ended this rank (SIGTERM)"
        with located(self.places):
            if not self._waits:
                self.survive()
                return f"{what} while it computed, after {self._place}", ()
            blamed = self._said.blamed
            if self.over and blamed:  # the script is about to end by the error
                return f"{what} in {self._place}, for which it had named {names(blamed)}", blamed
            self.survive()
            finding = last_look(self._said, self._size, self._channel, self.grace)
            text = f": {finding.text}" if finding.late else ""
            return f"{what} in {self._place}{text}", finding.certain

    @property
    def over(self) -> bool:
        """Whether this rank's last announcement was that it gave up or leaves."""
        return self._said.state in _FINAL

    @property
    def _place(self) -> str:
        return place(self._step, self._phase)

    def _say(self, state: State, reason: str = "", blamed: tuple[int, ...] = ()) -> None:
        with self._speaking:
            session, rank = self._said.session, self._said.rank
            self._said = Notice(rank, state, next(_BEATS), self._step, session, self._phase, reason, blamed)
            if self._size > 1:
                departure.speaks(self)
                self._channel.publish(self._said)

    def _linger(self, ready: Callable[[], bool]) -> Finding | None:
        """Waits until the timeout and announces it; None if the operation completed, else the finding."""
        deadline = time.monotonic() + self.timeout - self.patience
        while (left := deadline - time.monotonic()) > 0:
            self._say(State.WAITING)
            if self._poll(ready, min(self.interval, left)):
                return None
        # A rank that arrived just before the deadline announces itself within its own patience.
        return self._inquire(ready)

    def _inquire(self, ready: Callable[[], bool] | None = None) -> Finding | None:
        """Reads announcements for `grace` seconds, or until the late ranks are certain; None if ready."""
        self.inquiring = True
        self._say(State.WAITING if ready else State.RAISED)
        inquiry = Inquiry(self._said, self._size, self._channel.signs_of_life)
        deadline = time.monotonic() + self.grace
        # A store that has ended never answers; one on a busy machine may miss an answer or two.
        misses = _MISSES if self._channel.signs_of_life else 0
        while True:
            notices = self._channel.read(inquiry.open)
            if notices is None:
                misses -= 1
                if misses < 0:
                    return Finding((), _UNKNOWN)
            else:
                inquiry.look(notices)
                if inquiry.settled() or (inquiry.looks > 1 and time.monotonic() > deadline):
                    return inquiry.finding()
            if self._poll(ready or _never, self.interval / 2):
                self.inquiring = False
                return None
            self._say(self._said.state)

    def _poll(self, ready: Callable[[], bool], seconds: float) -> bool:
        # Short sleeps first, since most waits are short; then longer ones, which leave the core to others.
        deadline, pause = time.monotonic() + seconds, _FIRST_SLEEP
        while not ready():
            if time.monotonic() > deadline:
                return False
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_SLEEP)
        return True

    def _raise(self, what: str, finding: Finding, cause: Exception | None = None) -> NoReturn:
        error = self._error(f"{what}: {finding.text}", finding.late)
        error.doubtful = finding.doubtful
        self._say(State.RAISED, blamed=finding.certain)
        raise error from cause


_MISSES = 3  # unanswered readings of the announcements before an inquiry ends
_UNKNOWN = (
    "the late ranks could not be learnt (with Gloo the launcher's store must answer; MPI needs mpi4py and "
    "thread support; without torchrun, torch.distributed's store ends with the process of rank 0)"
)


def announced(method: Method) -> Method:
    """Decorates a method of a session: its errors say where ranks run, and are announced to the others."""

    @functools.wraps(method)
    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        with located(self.places):
            try:
                return method(self, *arguments, **options)
            except Exception as error:
                self.transport.watchdog.failed(error)
                raise

    return call  # type: ignore[return-value]


def _never() -> bool:
    return False


def _first_sentence(error: BaseException) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line.partition(". ")[0].removesuffix(".")
