"""The ledgers of a simulated run, in which it is known who is Byzantine at each step."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from horovod_byz.aggregation.source import Groups
from horovod_byz.aggregation.verdict import Verdict
from horovod_byz.ledger.account import Account
from horovod_byz.ledger.ledger import Ledger

__all__ = ["GroundTruth"]


@dataclass(frozen=True)
class _Part:
    """What a step says of some of the workers."""

    verdicts: tuple[Verdict, ...]
    rewritten: tuple[int, ...]
    outvoted_ranks: tuple[int, ...] = ()
    complainers: tuple[int, ...] = ()


class GroundTruth:
    """Two tallies: of the steps in which a worker was Byzantine, and of those in which it was honest.

    A worker that is redrawn is judged by what it was at each step. Beside them stands the ledger that an
    operator would have, who does not know who is Byzantine.

    Args:
        n: number of workers.
        who: says which workers are Byzantine at a step.
        groups: redundancy groups, where there are any.
        whole: an operator's ledger; a new one by default.

    Attributes:
        byzantine: each worker's steps in which it was Byzantine.
        honest: each worker's other steps, and what is known of ranks.
        whole: all steps, with evidence.
    """

    def __init__(
        self,
        n: int,
        who: Callable[[int], Sequence[int]],
        groups: Groups | None = None,
        whole: Ledger | None = None,
    ) -> None:
        self.n, self._who = n, who
        self._group = {worker: k for k, group in enumerate(groups or ()) for worker in group}
        self.byzantine, self.honest = Ledger(test=None), Ledger(test=None)
        self.whole = Ledger() if whole is None else whole

    @property
    def steps(self) -> int:
        """Steps entered."""
        return self.honest.steps

    def add(self, result: Any, step: int | None = None, groups: Groups | None = None) -> None:
        """Enters one step; see `Ledger.add`."""
        at = self.steps if step is None else step
        who = frozenset(self._who(at))
        rewritten = getattr(result, "rewritten", ())
        for ledger, guilty in ((self.byzantine, True), (self.honest, False)):
            verdicts = tuple(v for v in result.verdicts if (v.worker in who) is guilty)
            part = _Part(verdicts, tuple(worker for worker in rewritten if (worker in who) is guilty))
            if not guilty:  # ranks are no workers: counted once
                ranks = (getattr(result, name, ()) for name in ("outvoted_ranks", "complainers"))
                part = _Part(verdicts, part.rewritten, *ranks)
            ledger.tally(part, at, groups)
        self.whole.add(result, at, groups)

    def absent(self, workers: Any, step: int | None = None) -> None:
        """Enters that workers did not arrive in time for a step."""
        at = self.steps if step is None else step
        who = frozenset(self._who(at))
        self.byzantine.absent([worker for worker in workers if worker in who], at)
        self.honest.absent([worker for worker in workers if worker not in who], at)
        self.whole.absent(workers, at)

    def state_dict(self) -> dict[str, Any]:
        """All three, in plain values."""
        parts = {"byzantine": self.byzantine, "honest": self.honest, "whole": self.whole}
        return {name: ledger.state_dict() for name, ledger in parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what `state_dict` gave."""
        self.byzantine.load_state_dict(state["byzantine"])
        self.honest.load_state_dict(state["honest"])
        if "whole" in state:  # checkpoints of earlier versions have no operator's ledger
            self.whole.load_state_dict(state["whole"])

    def summary(self) -> dict[str, Any]:
        """The run's verdicts: one record per worker, and the sums that matter; steps count from 0."""
        steps = max(self.steps, 1)
        byzantine = [self.byzantine.account(worker) for worker in range(self.n)]
        honest = [self.honest.account(worker) for worker in range(self.n)]
        return {
            "steps": self.steps,
            "first_step": 0,
            "byzantine_share_of_weight": _share(sum(account.weight for account in byzantine), steps),
            "byzantine_rows_named": _named(byzantine),
            "honest_rows_named": _named(honest),
            "workers": [self._record(*pair) for pair in zip(byzantine, honest, strict=True)],
        }

    def _record(self, byzantine: Account, honest: Account) -> dict[str, Any]:
        reasons: Counter[str] = byzantine.reasons + honest.reasons
        last = max(byzantine.last_suspect, honest.last_suspect)
        return {
            "worker": honest.worker,
            "byzantine_steps": byzantine.steps,
            "mean_weight": _share(byzantine.weight + honest.weight, max(self.steps, 1)),
            "nonfinite_steps": reasons["non-finite"],
            "far_steps": reasons["far"],
            "outvoted_steps": reasons["outvoted"],
            "last_suspect_step": last if last >= 0 else None,
            **({"group": self._group[honest.worker]} if self._group else {}),
        }


def _share(weight: float, steps: int) -> float | None:
    """A mean weight; None where a coordinate-wise rule's weights were not measured."""
    return round(weight / steps, 6) if math.isfinite(weight) else None


def _named(accounts: Sequence[Account]) -> float | None:
    """The share of rows that were suspect."""
    rows = sum(account.steps for account in accounts)
    return round(sum(account.suspect for account in accounts) / rows, 6) if rows else None
