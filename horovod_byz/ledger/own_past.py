"""The test "unlike its own past": a worker's row beside its earlier ones, for workers with unlike data.

Per step and worker three scores are kept, each relative to the step's median worker, so that what all workers
share (a falling loss, another learning rate) cancels:

    log norm - median of log norms,    log distance - median,    cosine - median.

The claim that is bet against: within a block of `BLOCK` steps an honest worker's score is a level that moves
by `MARGINS` at most plus exchangeable noise. Then for the j-th score of a block

    P(#{s <= j : z_s + margin >= z_j} <= u j) <= u    given the earlier ranks in the block,

a conformal p-value with a margin; the same from below. Evidence for a change comes from its own block alone,
so blocks are laid out `LAYOUTS` times, each shifted: some block always holds enough of the past when a change
comes. A worker that is wrong from its first step on has no honest past, and is not seen.

Reference: Vovk, Gammerman, Shafer (2022), Algorithmic learning in a random world, 2nd ed., chapter 8
(conformal test martingales).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from horovod_byz.ledger.bets import STAKES, Bets
from horovod_byz.ledger.exchangeable import Observed

__all__ = ["BLOCK", "CHANCE", "LAYOUTS", "MARGINS", "OwnPast"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]

BLOCK, LAYOUTS = 96, 4
PART = BLOCK // LAYOUTS
# A factor of 2 for distance and norm; 0.4 of a cosine.
MARGINS = np.array([np.log(2), np.log(2), 0.4])
CHANCE = 1 / 3
_SMALLEST = np.finfo(np.float64).tiny


class OwnPast:
    """Bets on each worker's ranks among its own earlier scores."""

    reason = "unlike its own past"
    assumes = (
        f"within {BLOCK} steps an honest worker's distance and norm, relative to the median worker, move by "
        "a factor of 2 at most, and its cosine by 0.4, beside exchangeable noise; more than half of the "
        "workers are honest"
    )

    def __init__(self) -> None:
        self.step = 0
        self.bets = Bets(LAYOUTS * 2 * len(MARGINS))
        self._past = np.full((BLOCK, len(MARGINS), 0), np.nan)  # of step t at t % BLOCK

    def observe(self, seen: Observed) -> None:
        """One step."""
        workers = seen.workers
        now = _relative(seen.scores)
        if seen.unit is not None:
            # A last column without scores, for the unit -1.
            scores = np.full((len(MARGINS), now.shape[1] + 1), np.nan)
            scores[:, :-1] = now
            now = scores[:, seen.unit]
        self._widen(int(workers.max(initial=-1)) + 1)
        # Blocks of all layouts begin at slots that are multiples of PART, so that parts are counted once.
        quarter, place = divmod(self.step % BLOCK, PART)
        counts = self._counts(now, workers)
        hits = np.empty((LAYOUTS, 2 * len(MARGINS), len(workers)), np.bool_)
        chances = np.ones((LAYOUTS, 2 * len(MARGINS)))
        behind = np.zeros(counts.shape[1:], np.uint8)
        for parts in range(LAYOUTS):  # whole parts of the block before the current one
            behind += counts[(quarter - parts) % LAYOUTS]
            length = min(PART * parts + place, self.step)
            small, k = int(CHANCE * (length + 1)), (parts - quarter) % LAYOUTS
            hits[k] = behind < small
            if small:
                chances[k] = small / (length + 1)
        met = hits.reshape(-1, len(workers)).T
        if seen.unit is not None:
            met = met & (seen.unit >= 0)[:, None]
        self.bets.bet(workers, met, chances.ravel())
        slot = self._past[self.step % BLOCK]
        slot[:] = np.nan
        slot[:, workers] = now
        self.step += 1

    def _counts(self, now: Floats, workers: Ints) -> npt.NDArray[np.uint8]:
        """(parts, 6, workers): in how many steps of each part of the past a score was not above, or below.

        Negated comparisons, so that a missing score counts against the accusation.
        """
        past = self._past if len(workers) == self._past.shape[2] else self._past[:, :, workers]
        margin, end = MARGINS[:, None], min(self.step, BLOCK)
        counted = np.zeros((BLOCK, 2, *now.shape), np.bool_)
        np.less(past[:end] + margin, now, out=counted[:end, 0])
        np.greater(past[:end] - margin, now, out=counted[:end, 1])
        np.logical_not(counted[:end], out=counted[:end])
        slot = self.step % BLOCK
        counted[slot : slot - slot % PART + PART] = False  # from the block before, or of no step yet
        parts = counted.view(np.uint8).reshape(LAYOUTS, PART, -1)  # a part's count fits a byte
        totals: npt.NDArray[np.uint8] = np.add.reduce(parts, axis=1, dtype=np.uint8)
        return totals.reshape(LAYOUTS, 2 * len(MARGINS), -1)

    def _widen(self, n: int) -> None:
        missing = n - self._past.shape[2]
        if missing > 0:
            self._past = np.pad(self._past, ((0, 0), (0, 0), (0, missing)), constant_values=np.nan)

    def forget(self, worker: int) -> None:
        """Tests a worker as if it came now, without a past."""
        self.bets.restart(worker)
        self._past[:, :, worker : worker + 1] = np.nan

    def growth(self, n: int) -> Floats:
        """(experts,) by how much a step multiplies the money of each expert at most."""
        # No event has a chance below 1/5: the smallest of int(CHANCE * t) / t is that of t = 5.
        return np.tile(1 - STAKES + 5 * STAKES, self.bets.events)

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"step": self.step, "past": self._past.tolist(), "bets": self.bets.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what `state_dict` gave."""
        self.step = int(state["step"])
        self._past = np.array(state["past"], np.float64)
        self.bets.load_state_dict(state["bets"])


def _relative(scores: Floats) -> Floats:
    """Distance, norm and cosine relative to the median worker's; the first two as logarithms."""
    values = np.concatenate([np.log(np.maximum(scores[:2], _SMALLEST)), scores[2:]])
    m = values.shape[1]
    if not m:
        return values
    ordered = np.sort(values, axis=1)
    relative: Floats = values - ((ordered[:, (m - 1) // 2] + ordered[:, m // 2]) / 2)[:, None]
    return relative
