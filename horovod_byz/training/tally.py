"""Sums up the verdicts of a run: what happened to each worker, beside whether it really was Byzantine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from horovod_byz.aggregation.source import Groups
from horovod_byz.aggregation.verdict import Verdict

__all__ = ["Tally"]

_COLUMNS = (
    "byzantine",
    "weight",
    "byzantine_weight",
    "nonfinite",
    "far",
    "suspect_byzantine",
    "suspect_honest",
    "outvoted",
    "last_suspect",  # no sum: one more than the last such step, 0 before the first
)


class Tally:
    """Running sums per worker; a worker that is redrawn is judged by what it was at each step.

    Args:
        n: number of workers.
        groups: redundancy groups, where there are any.
    """

    def __init__(self, n: int, groups: Groups | None = None) -> None:
        self.steps = 0
        self._group = {worker: k for k, group in enumerate(groups or ()) for worker in group}
        self.sums = np.zeros((n, len(_COLUMNS)))

    def add(self, verdicts: Iterable[Verdict], byzantine: Sequence[int]) -> None:
        """Count one step.

        Args:
            verdicts: one per worker.
            byzantine: who was Byzantine at this step.
        """
        self.steps += 1
        for verdict in verdicts:
            guilty = verdict.worker in byzantine
            row = self.sums[verdict.worker]
            row[:-1] += (
                guilty,
                verdict.weight,
                verdict.weight * guilty,
                verdict.nonfinite > 0,
                verdict.reason == "far",
                verdict.suspect and guilty,
                verdict.suspect and not guilty,
                verdict.reason == "outvoted",
            )
            if verdict.suspect:
                row[-1] = self.steps

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"steps": self.steps, "sums": torch.from_numpy(self.sums.copy())}

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        self.steps = int(state["steps"])
        self.sums = state["sums"].numpy().copy()

    def summary(self) -> dict[str, Any]:
        """The run's verdicts: one record per worker, and the sums that matter; steps count from 0."""
        steps = max(self.steps, 1)
        workers = [
            {
                "worker": worker,
                "byzantine_steps": int(row[0]),
                "mean_weight": round(row[1] / steps, 6),
                "nonfinite_steps": int(row[3]),
                "far_steps": int(row[4]),
                "outvoted_steps": int(row[7]),
                "last_suspect_step": int(row[8]) - 1 if row[8] else None,
                **({"group": self._group[worker]} if self._group else {}),
            }
            for worker, row in enumerate(self.sums.tolist())
        ]
        total = self.sums.sum(axis=0).tolist()
        honest = self.steps * len(self.sums) - total[0]
        return {
            "steps": self.steps,
            "first_step": 0,
            "byzantine_share_of_weight": round(total[2] / steps, 6),
            "byzantine_rows_named": _share(total[5], total[0]),
            "honest_rows_named": _share(total[6], honest),
            "workers": workers,
        }


def _share(part: float, whole: float) -> float | None:
    return round(part / whole, 6) if whole else None
