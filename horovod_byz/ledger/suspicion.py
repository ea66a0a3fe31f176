"""Who is suspected, with a stated false-alarm rate: the tests, fed with the verdicts of each step.

Each worker has an e-value, the money that `Bets` won on the claim that it is honest. Over n workers and all
steps of a run, any honest worker's e-value reaches n / alpha with probability alpha at most (Ville's
inequality, and a union over workers). At that step the worker is named, once; and again where it was
readmitted, with an e-value that began anew.

Nobody's weight enters: a rule has no say in who is suspected.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from horovod_byz.aggregation.source import Groups
from horovod_byz.aggregation.verdict import Seen, Table, Verdict
from horovod_byz.ledger.bets import TOGETHER
from horovod_byz.ledger.exchangeable import Camps, Exchangeable, Observed, most
from horovod_byz.ledger.own_past import OwnPast

__all__ = ["TESTS", "Finding", "Suspicion", "TestName"]

TestName = Literal["exchangeable", "own past"]
TESTS: dict[str, type[Exchangeable] | type[OwnPast]] = {"exchangeable": Exchangeable, "own past": OwnPast}

# Workers are named from this step on, when `Camps` has had time to see that the assumptions do not hold.
_PATIENCE = 40


@dataclass(frozen=True)
class Finding:
    """What one step added.

    Attributes:
        named: the workers whose e-value crossed, with that e-value.
        camps: why nobody is named from here on, or "".
    """

    named: dict[int, float] = field(default_factory=dict)
    camps: str = ""


_NOTHING = Finding()


class Suspicion:
    """A test over the steps of a run.

    Args:
        alpha: probability with which it may ever name an honest worker of a run.
        test: "exchangeable" or "own past".

    Attributes:
        named: the step at which each named worker was named.
        undecided: whether the evidence says that nobody knows who is wrong; then nobody more is named.

    Raises:
        ValueError: for another alpha or test.
    """

    def __init__(self, alpha: float, test: TestName) -> None:
        if not 0 < alpha < 1:
            raise ValueError(f"Ledger: alpha must be a probability above 0 and below 1, got {alpha!r}")
        if test not in TESTS:
            raise ValueError(f'Ledger: test must be "exchangeable", "own past" or None, got {test!r}')
        self.alpha, self.test = alpha, test
        self.named: dict[int, int] = {}
        self.undecided = False
        self._test, self._camps = TESTS[test](), Camps()
        self._steps = self._workers = 0
        self._pending: list[tuple[Seen, Groups | None]] = []
        self._free = (0, 0)  # further steps, with so many rows, after which no e-value can have crossed

    @property
    def reason(self) -> str:
        """The key of `SUSPICIONS`."""
        return self._test.reason

    @property
    def assumes(self) -> str:
        """What the false-alarm rate holds under, in words."""
        return self._test.assumes

    def log10(self, worker: int) -> float:
        """The logarithm of a worker's e-value, 0 at first; it is named at log10(n / alpha)."""
        self.settle()
        return math.log10(self._test.bets.of(worker))

    def observe(self, step: int, verdicts: Seen | Sequence[Verdict], groups: Groups | None = None) -> Finding:
        """One step.

        Args:
            step: the optimizer step.
            verdicts: one per worker.
            groups: redundancy groups; the rows of one are one observation.
        """
        seen = Table.of_verdicts(verdicts) if isinstance(verdicts, Sequence) else verdicts
        self._steps += 1
        self._workers = max(self._workers, seen.n)
        self._pending.append((seen, groups))
        steps, n = self._free
        if steps and n == seen.n:  # nobody can be named at this step: a few in a row cost less than each
            self._free = steps - 1, n
            return _NOTHING
        self.settle()
        finding = self._judged(step)
        self._free = self._steps_ahead(seen.n), seen.n
        return finding

    def _steps_ahead(self, n: int) -> int:
        """The number of further steps, with n rows, in which no e-value can cross its limit."""
        if self.undecided:
            return TOGETHER
        below = self._test.bets.steps_below(self._workers / self.alpha, self._test.growth(n))
        return min(max(below, _PATIENCE - 1 - self._steps), self._camps.steps_below(1 / self.alpha), TOGETHER)

    def settle(self) -> None:
        """Takes the steps into account that wait."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        for seen, groups in pending:
            observed = _observed(seen.table, groups, self.named)
            self._test.observe(observed)
            if self.test == "exchangeable":
                self._camps.observe(observed)

    def _judged(self, step: int) -> Finding:
        if self.undecided:
            return _NOTHING
        if self._camps.money >= 1 / self.alpha:
            self.undecided = True
            return Finding(camps="many workers differ from one another in the same way at each step")
        if self._steps < _PATIENCE:
            return _NOTHING
        money = self._test.bets.money()
        if not money.max(initial=0.0) >= self._workers / self.alpha:
            return _NOTHING
        over = [int(worker) for worker in np.flatnonzero(money >= self._workers / self.alpha)]
        fresh = {worker: float(money[worker]) for worker in over if worker not in self.named}
        if fresh and len(self.named) + len(fresh) > most(self._workers):
            self.undecided = True
            return Finding(camps=f"{len(fresh) + len(self.named)} workers are unlike the others")
        self.named.update(dict.fromkeys(fresh, step))
        return Finding(fresh)

    def readmit(self, worker: int) -> None:
        """Tests a worker anew that was named, or excluded for another reason: its evidence has been used."""
        self.settle()
        self.named.pop(worker, None)
        self._test.forget(worker)
        self._free = (0, 0)

    @property
    def history(self) -> str:
        """What the steps so far come to, in words that ranks can compare; "" before the first step.

        Of e-values three digits: ranks on other processors may round otherwise.
        """
        if not self._steps:
            return ""
        self.settle()
        values = np.log10(self._test.bets.money()).round(3).tolist()
        return f"{self._steps} steps, named {sorted(self.named.items())}, {self.undecided}, {values}"

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        self.settle()
        return {
            "test": self.test,
            "named": dict(self.named),
            "undecided": self.undecided,
            "steps": self._steps,
            "workers": self._workers,
            "state": self._test.state_dict(),
            "camps": self._camps.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what `state_dict` gave; leaves aside the state of another test."""
        if state["test"] != self.test:
            return
        self._pending.clear()
        self.named = {int(worker): int(step) for worker, step in state["named"].items()}
        self.undecided, self._steps, self._workers = state["undecided"], state["steps"], state["workers"]
        self._test.load_state_dict(state["state"])
        self._camps.load_state_dict(state["camps"])
        self._free = (0, 0)


def _observed(table: Table, groups: Groups | None, named: Collection[int]) -> Observed:
    """The rows that are compared: without those that have proof against them, and those of named workers."""
    workers, alike = table.workers, np.logical_and.reduce(table.comparable)
    if alike and table.scored and not (named or groups or table.proven):
        return Observed(table.numbers[1:], workers, None)
    scores = table.numbers[1:].copy()
    # An outvoted row, like one that was not measured or is not finite, is no part of the comparison. Equal
    # scores are ties, which never count as evidence.
    scores[::2] *= table.comparable
    scores[2, table.outvoted] = np.nan
    if named:
        tested = np.array([worker not in named for worker in workers.tolist()], np.bool_)
        scores, workers = scores[:, tested], workers[tested]
    with np.errstate(over="ignore"):
        fit = np.isfinite(scores.sum(axis=0))
    if not groups:
        if fit.all():
            return Observed(scores, workers, None)
        unit = np.full(len(workers), -1, np.intp)
        unit[fit] = np.arange(np.count_nonzero(fit))
        return Observed(scores[:, fit], workers, unit)
    unit = np.full(len(workers), -1, np.intp)
    where = {worker: row for row, worker in enumerate(workers.tolist()) if fit[row]}
    rows: list[int] = []
    for group in groups:
        members = [where[worker] for worker in group if worker in where]
        if members:
            unit[members] = len(rows)
            rows.append(members[0])
    return Observed(scores[:, rows], workers, unit)
