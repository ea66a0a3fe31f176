"""What a ledger records of a session: who takes part, and the errors between ranks."""

from __future__ import annotations

import gc
import os
import textwrap
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from horovod_byz.collect import (
    EquivocationError,
    HeaderMismatchError,
    JoinedRanksError,
    LateRanksError,
    Session,
    StateMismatchError,
    TransportError,
    ranks,
    termination,
)
from horovod_byz.ledger import endings
from horovod_byz.ledger.evidence import Evidence
from horovod_byz.ledger.ledger import Ledger
from horovod_byz.ledger.suspicion import TestName

if TYPE_CHECKING:
    from horovod_byz.rules import Rule

__all__ = ["as_ledger", "check_owner", "introduce", "introducing", "recorded"]

_REASONS: tuple[tuple[type[TransportError], str], ...] = (
    (LateRanksError, "late"),
    (EquivocationError, "two stories"),
    (StateMismatchError, "state"),
    (HeaderMismatchError, "header"),
)
# Ledger -> weak reference to the optimizer whose steps it counts; a copy of either begins without.
_OWNERS: weakref.WeakKeyDictionary[Ledger, weakref.ref[Any]] = weakref.WeakKeyDictionary()
_GONE = "it had failed before the launcher ended the others"
_LONGEST = 160  # characters of an error in a piece of evidence


def as_ledger(
    ledger: Ledger | str | os.PathLike[str] | None,
    on_verdict: Callable[[Evidence], Any] | None = None,
    *,
    momentum: bool = False,
) -> Ledger:
    """A ledger of this rank: the given one, one with that folder, or one in memory.

    Args:
        ledger: as for `DistributedOptimizer`.
        on_verdict: likewise.
        momentum: whether workers send momentum. A row then resembles the worker's earlier ones, which every
            test would take for evidence against honest workers: such a ledger names by proof only.

    Raises:
        TypeError: if a ledger is given that has its own listeners, and a function beside it; or what is no
            ledger and no path.
        ValueError: if a ledger with a test is given where workers send momentum.
        OSError: if the folder cannot be written to.
    """
    if ledger is not None and not isinstance(ledger, (Ledger, str, os.PathLike)):
        raise TypeError(f"ledger must be a folder, a hb.Ledger or None, got {type(ledger).__name__}")
    if not isinstance(ledger, Ledger):
        test: TestName | None = None if momentum else "exchangeable"
        ledger = Ledger(ledger, test=test, on_verdict=on_verdict)
    elif momentum and ledger.test is not None:
        raise ValueError(
            f"worker_momentum does not go with the ledger's test {ledger.test!r}: a worker's rows resemble "
            "its earlier ones, so that the test would name honest workers; give hb.Ledger(..., test=None)"
        )
    elif on_verdict is not None:
        raise TypeError("give on_verdict to the ledger: hb.Ledger(path, on_verdict=...)")
    ledger.rank = ranks()[0]
    return ledger


def check_owner(ledger: Ledger, owner: Any) -> None:
    """Notes that a ledger belongs to an optimizer, which is about to take steps.

    An optimizer that is gone, took its hooks off or has another ledger by now gives it up, and so does one
    whose ranks are others now: after an elastic reset a script makes its optimizer anew.

    Raises:
        ValueError: if it belongs to another one.
    """
    if _uses(_owner_of(ledger), ledger, owner):
        gc.collect()  # a wrapper that a script has dropped may wait in a cycle
        if _uses(_owner_of(ledger), ledger, owner):
            raise ValueError(
                "this hb.Ledger belongs to another DistributedOptimizer: it would count the steps of both as "
                "one run's, and test rows of different parameters against one another. Give each optimizer "
                "a ledger, and a folder, of its own, or call remove_hooks() on the one that is done"
            )
    _OWNERS[ledger] = weakref.ref(owner)


def _owner_of(ledger: Ledger) -> Any:
    reference = _OWNERS.get(ledger)
    return None if reference is None else reference()


def _uses(owner: Any, ledger: Ledger, other: Any) -> bool:
    if owner is None or owner is other or owner.ledger is not ledger:
        return False
    session = owner._session
    return session is not None and session.is_current and owner._hooks.attached


def _is_in_use(ledger: Ledger) -> bool:
    """Whether an optimizer may still step with it; True for a ledger that another program has bound."""
    if ledger not in _OWNERS:
        return True
    owner = _owner_of(ledger)
    return owner is not None and owner.ledger is ledger and owner._hooks.attached


def introduce(ledger: Ledger, session: Session, rule: Rule) -> None:
    """Tells a ledger who takes part in a session."""
    redundancy = getattr(rule, "redundancy", None)
    groups = None if redundancy is None else redundancy.groups_of(session.n)
    largest = rule.max_byzantine(session.n)
    termination.when_terminated(terminated)
    ledger.bind(
        session.places,
        session.transport.rank,
        workers=session.n,
        rule=repr(rule),
        collect=session.mode,
        groups=None if groups is None else [list(map(int, group)) for group in groups],
        f=largest if largest >= 0 else None,
    )


def introducing(owner: Any, session: Session) -> Callable[[Any, Rule], None]:
    """What a session calls at each agreement: introduces it to the ledger that `owner` then has."""
    # Weak: the session has this function, and must not keep the wrapper and its parameters alive.
    wrapper, bound = weakref.ref(owner), weakref.ref(session)

    def action(_: Any, rule: Rule) -> None:
        optimizer, agreed = wrapper(), bound()
        if optimizer is not None and agreed is not None:
            introduce(optimizer.ledger, agreed, rule)

    return action


@contextmanager
def recorded(ledger: Ledger, step: Callable[[], int]) -> Iterator[None]:
    """Inside, an error between ranks is entered in the ledger, whose file then says why the run ended.

    Args:
        ledger: the ledger.
        step: the step of the error.
    """
    try:
        yield
    except TransportError as error:
        # The comparison of states has entered more than the error knows: the tensors.
        known = {(entry.step, entry.reason, entry.rank) for entry in ledger.evidence}
        for evidence in _evidence(ledger, error, step()):
            if (evidence.step, evidence.reason, evidence.rank) not in known:
                ledger.enter(evidence)
        ledger.end(endings.first_line(error), endings.accused(error))
        raise


def terminated(reason: str, ranks: Sequence[int] = ()) -> None:
    """Tells the ledgers with a file that the launcher ends this process, and which ranks failed before.

    A ledger whose optimizer is done, or gone, hears the reason only: ranks that fail after its run are not
    its culprits.
    """
    ledgers = endings.ledgers()
    if len(ledgers) > 1:
        gc.collect()  # the optimizer of a run that is over may wait in a cycle
    for ledger in ledgers:
        if not _is_in_use(ledger):
            ledger.end(reason)
            continue
        known = {entry.rank for entry in ledger.evidence if entry.reason == "late"}
        for rank in sorted(set(ranks) - known):
            workers = next((place.workers for place in ledger.places if place.rank == rank), ())
            worker = workers[0] if len(workers) == 1 else None
            ledger.enter(Evidence(ledger.steps, "proof", "late", worker, rank, _GONE))
        ledger.end(reason, ranks)


def _evidence(ledger: Ledger, error: TransportError, step: int) -> Iterator[Evidence]:
    """Proof against the ranks that the error names, unless it does not know which of them is wrong."""
    reason = next((reason for kind, reason in _REASONS if isinstance(error, kind)), "")
    if not reason or isinstance(error, JoinedRanksError):
        return  # a script that joins early is a mistake of the script on all ranks
    size = len(ledger.places) or ranks()[1]  # which cannot be asked once the job was shut down
    if reason != "late" and 2 * len(error.ranks) >= size:
        return
    workers = {place.rank: place.workers for place in ledger.places}
    for rank in error.ranks:
        own = workers.get(rank, ())
        if rank in error.doubtful or (reason == "late" and own):
            continue  # workers of late ranks are entered as absent
        detail = "" if reason == "late" else textwrap.shorten(str(error), _LONGEST)
        yield Evidence(step, "proof", reason, own[0] if len(own) == 1 else None, rank, detail)
