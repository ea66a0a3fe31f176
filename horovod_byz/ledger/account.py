"""What one worker did so far."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from horovod_byz.aggregation.verdict import Verdict
from horovod_byz.ledger.evidence import PROOFS, Evidence

__all__ = ["Account"]


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

    def add(self, verdict: Verdict, step: int) -> None:
        self.steps += 1
        self.weight += verdict.weight
        self.ignored += verdict.weight == 0.0
        self.nonfinite += verdict.nonfinite
        if math.isfinite(verdict.distance):
            self.distance += verdict.distance
            self.measured += 1
        if verdict.suspect:
            self.reasons[verdict.reason] += 1
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


def _mean(total: float, count: int) -> float | None:
    # JSON has no infinity; a sum of distances to rows near 1e308 may be one.
    return total / count if count and math.isfinite(total) else None
