"""What one worker did so far."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from horovod_byz.aggregation.verdict import Table
from horovod_byz.ledger.evidence import PROOFS, Evidence

__all__ = ["Account", "Sums"]


@dataclass
class Account:
    """What one worker did so far.

    Attributes:
        worker: its index.
        steps: steps with a verdict on it.
        weight: sum of the weights that its rows received.
        ignored: steps in which its row had weight 0.
        reasons: steps in which its row stood out, by reason ("non-finite", "outvoted", "far").
        nonfinite: number of NaN and infinite values it sent.
        rewritten: steps in which a peer rewrote its row on the way; the worker is the victim.
        absent: steps for which it did not arrive in time.
        distance: sum of its distances to the result, over `measured` steps.
        measured: steps in which its distance was finite.
        last_suspect: last step in which it stood out or was absent, or -1.
        group: its redundancy group, or None where there are none.
        proofs: occurrences of each proof against it.
        suspicions: tests that named it, 1 each.
        first_suspect: step of the first proof or suspicion, or -1.
    """

    worker: int
    steps: int = 0
    weight: float = 0.0
    ignored: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    nonfinite: int = 0
    rewritten: int = 0
    absent: int = 0
    distance: float = 0.0
    measured: int = 0
    last_suspect: int = -1
    group: int | None = None
    proofs: Counter[str] = field(default_factory=Counter)
    suspicions: Counter[str] = field(default_factory=Counter)
    first_suspect: int = -1

    @property
    def suspect(self) -> int:
        """Steps in which its row stood out, or it was absent; a description, and no accusation."""
        return sum(self.reasons.values()) + self.absent

    @property
    def accused(self) -> bool:
        """Whether there is proof against it, or the test named it."""
        return bool(self.proofs or self.suspicions)

    def accuse(self, evidence: Evidence) -> None:
        """Enters a proof or a suspicion."""
        kind = self.proofs if evidence.kind == "proof" else self.suspicions
        kind[evidence.reason] += 1
        if self.first_suspect < 0:
            self.first_suspect = evidence.step

    def stood_out(self, reason: str, step: int) -> None:
        """Enters what stood out in its row."""
        self.reasons[reason] += 1
        self.last_suspect = step

    def report(self) -> dict[str, Any]:
        """The account in plain values, with means instead of sums; None where nothing was measured."""
        return {
            "worker": self.worker,
            "steps": self.steps,
            "mean_weight": _mean(self.weight, self.steps),
            "ignored": self.ignored,
            "suspect": self.suspect,
            "reasons": dict(sorted(self.reasons.items())),
            "nonfinite_values": self.nonfinite,
            "rewritten": self.rewritten,
            "absent": self.absent,
            "mean_distance": _mean(self.distance, self.measured),
            "proofs": dict(sorted(self.proofs.items())),
            "suspicions": dict(sorted(self.suspicions.items())),
            "first_suspect_step": self.first_suspect if self.first_suspect >= 0 else None,
            "last_suspect_step": self.last_suspect if self.last_suspect >= 0 else None,
            "group": self.group,
        }

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        counters = {name: dict(getattr(self, name)) for name in ("reasons", "proofs", "suspicions")}
        return {**vars(self), **counters}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Account:
        """The account that gave this state; one of an earlier version counted proofs among the reasons."""
        reasons = Counter(state["reasons"])
        old = {reason: count for reason, count in reasons.items() if reason in PROOFS}
        if state["absent"]:
            old["late"] = state["absent"]
        counters = {
            "proofs": Counter(state.get("proofs", old)),
            "suspicions": Counter(state.get("suspicions", {})),
        }
        return cls(**{**state, "reasons": reasons, **counters})


class Sums:
    """The sums of many accounts in arrays, to which a step is added at once; `write` gives them back.

    Args:
        accounts: the workers' accounts, in the order of the tables to come.
    """

    _WHOLE, _REAL = ("steps", "ignored", "nonfinite", "measured"), ("weight", "distance")

    def __init__(self, accounts: Sequence[Account]) -> None:
        self._accounts = tuple(accounts)
        self._workers = np.array([account.worker for account in accounts], np.intp)
        # Whole numbers as Python counts them never overflow; no run sends 2^63 values.
        self._whole = np.array([[getattr(a, name) for a in accounts] for name in self._WHOLE], np.int64)
        self._real = np.array([[getattr(a, name) for a in accounts] for name in self._REAL], np.float64)
        self._scored = 0  # steps in which every row was measured, which `write` adds

    def is_of(self, table: Table) -> bool:
        """Whether these are the workers of a table."""
        if self._workers is table.workers:
            return True
        same = bool(np.array_equal(self._workers, table.workers))
        if same:
            self._workers = table.workers  # the same array comes at each step
        return same

    def add(self, table: Table) -> None:
        """Adds a step; see `Account` for the sums."""
        steps, ignored, nonfinite, measured = self._whole
        ignored += table.weights == 0.0
        nonfinite += table.nonfinite
        if table.scored:
            self._scored += 1
            self._real += table.numbers[:2]
            return
        near = table.measured[1]
        steps += 1
        measured += near
        weight, distance = self._real
        weight += table.weights
        np.add(distance, table.distances, out=distance, where=near)

    def write(self) -> None:
        """Writes the sums into the accounts."""
        self._whole[[0, 3]] += self._scored
        self._scored = 0
        for names, table in ((self._WHOLE, self._whole), (self._REAL, self._real)):
            for name, values in zip(names, table.tolist(), strict=True):
                for account, value in zip(self._accounts, values, strict=True):
                    setattr(account, name, value)


def _mean(total: float, count: int) -> float | None:
    # JSON has no infinity; a sum of distances to rows near 1e308 may be one.
    return total / count if count and math.isfinite(total) else None
