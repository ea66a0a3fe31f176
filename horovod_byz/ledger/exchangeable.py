"""The test "unlike the others": where a worker's row ranks among the rows of the same step.

Honest workers that draw their samples alike are exchangeable: given all that happened before, each is as
likely as the other to hold the largest of their distances, norms or cosines. Let m rows be compared, of which
fewer than half are Byzantine, so f = (m - 1) // 2 at most. For an honest worker i and a score s

    P(#{j : s_j >= s_i} <= c) <= c / (m - f)    for c = 1, 2, ...

since Byzantine rows can only add to the count, whatever they are, and the m - f honest rows are exchangeable.
Ties count against the accusation. The same holds for "<=", so that rows that are too small or too near are
seen, too. `Bets` bets on these events for three c: the extreme row, a ninth and a third of the workers.

Under a rule that gives no row a special place (`Rule.symmetric`; ties go by the row's index only) the
aggregate is a symmetric function of the rows, so distances and cosines to it are exchangeable where rows are.
Under any other rule only norms are compared. An adversary that sees which worker holds which row may break
exchangeability for distance and cosine, by moving the aggregate away from one worker; the norm of a row
depends on nobody else.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from horovod_byz.ledger.bets import STAKES, Bets, entering, steps_below

__all__ = ["Camps", "Exchangeable", "Observed", "most"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]
# What is bet on: which statistics are counted from above and from below, and how many c.
_SCORES, _COUNTS = 3, 3


def most(units: int) -> int:
    """How many units a test may name: a third, since beyond that nobody knows who is unlike whom."""
    return max((units - 1) // 3, 1)


@dataclass(frozen=True)
class Observed:
    """The rows of one step that are compared.

    Attributes:
        scores: (3, m) distance, norm and cosine of the row of each unit: each worker, or each redundancy
            group, whose rows are one observation.
        workers: the workers that are tested, ascending.
        unit: the unit of each of them; -1 for a worker whose row was left out, for which the step is a miss.
            None: each worker is the unit of its own index, in order.
    """

    scores: Floats
    workers: Ints
    unit: Ints | None = None

    @property
    def first(self) -> Ints:
        """(m,) a worker of each unit, the lowest."""
        if self.unit is None:
            return self.workers
        workers = np.zeros(self.scores.shape[1], np.intp)
        known = self.unit[::-1] >= 0
        workers[self.unit[::-1][known]] = self.workers[::-1][known]
        return workers


class Exchangeable:
    """Bets on each worker's ranks among the others."""

    reason = "unlike the others"
    assumes = "honest workers draw their samples alike (shuffled data), and are more than half of the workers"

    def __init__(self) -> None:
        self.bets = Bets(2 * _SCORES * _COUNTS)

    def observe(self, seen: Observed) -> None:
        """One step."""
        m = seen.scores.shape[1]
        if m < 3:  # of two rows none is unlike the others
            return
        bounds, chances = _bets_on(m)
        hits = _extreme(seen.scores, bounds)
        if seen.unit is not None:
            missed = np.zeros((len(hits), m + 1), np.bool_)  # column -1: a miss
            missed[:, :m] = hits
            hits = missed[:, seen.unit]
        self.bets.bet(seen.workers, hits.T, chances)

    def forget(self, worker: int) -> None:
        """Tests a worker as if it came now."""
        self.bets.restart(worker)

    def growth(self, n: int) -> Floats:
        """(experts,) by how much a step multiplies the money of each expert at most, with n rows at most."""
        return _growth(n)

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"bets": self.bets.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what `state_dict` gave."""
        self.bets.load_state_dict(state["bets"])


class Camps:
    """Bets that more than a third of the workers differ from the others, on either side.

    Workers are ordered by where they ranked so far, and a third is left out at each end. If the others are
    exchangeable, the upper half of them ranks above the lower half now as often as below:

        the share of pairs in which the upper row has the larger score is 1/2 on average,

    which is what is bet on. The money grows where two camps persist, neither of them small, and where the
    workers' data differ, which breaks the assumption of `Exchangeable`.
    """

    # Weight of the past in the running mean of ranks.
    _MEMORY = 0.9

    def __init__(self) -> None:
        self.step = 0
        self._money = np.zeros((_SCORES, len(STAKES)))
        self._ranks = np.zeros((_SCORES, 0))

    def observe(self, seen: Observed) -> None:
        """One step."""
        self.step += 1
        self._money += entering(self.step) / self._money.size
        m, first = seen.scores.shape[1], seen.first
        missing = (int(first.max()) + 1 if m else 0) - self._ranks.shape[1]
        if missing > 0:
            self._ranks = np.pad(self._ranks, ((0, 0), (0, missing)))
        everybody = seen.unit is None and len(first) == self._ranks.shape[1]  # and in order: they ascend
        begin, places = _begins(m), _places(m)
        half = (m - 2 * most(m)) // 2
        if half >= 2:
            past = self._ranks if everybody else self._ranks[:, first]
            order = past.argsort(axis=1, kind="stable")[:, most(m) : m - most(m)]
            middle = seen.scores.take(order + begin)
            upper, lower = middle[:, -half:, None], middle[:, None, :half]
            pairs = np.sign(upper - lower).reshape(_SCORES, -1)
            above = np.add.reduce(pairs, axis=1) / pairs.shape[1]  # -1 to 1; whole numbers add exactly
            self._money *= 1 + STAKES * above[:, None]
        place = np.empty((_SCORES, m))
        place.put(seen.scores.argsort(axis=1) + begin, places)
        self._ranks *= self._MEMORY
        if everybody:
            self._ranks += place
        else:
            self._ranks[:, first] += place

    def steps_below(self, limit: float) -> int:
        """See `Bets.steps_below`."""
        return steps_below(limit, self._money, 1 + STAKES, self.step)

    @property
    def money(self) -> float:
        """The e-value against "at most a third of the workers differ"."""
        return float(self._money.sum()) + 1 / math.log2(self.step + 2)

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"step": self.step, "money": self._money.tolist(), "ranks": self._ranks.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what `state_dict` gave."""
        self.step = int(state["step"])
        self._money = np.array(state["money"], np.float64)
        self._ranks = np.array(state["ranks"], np.float64).reshape(_SCORES, -1)


@functools.lru_cache(maxsize=32)
def _bets_on(m: int) -> tuple[Ints, Floats]:
    """What is bet on among m units: see `_extreme`, and the chance of each of the 18 events."""
    honest, third = m - (m - 1) // 2, most(m)
    counts = np.array([1, -(-third // 3), third])
    bounds = np.stack([_begins(m) + (m - 1 - counts), _begins(m) + counts])
    return bounds[..., None], np.tile(counts / honest, 2 * _SCORES)


@functools.lru_cache(maxsize=32)
def _growth(n: int) -> Floats:
    largest = np.ones(2 * _SCORES * _COUNTS)
    for m in range(3, n + 1):  # fewer rows than n are compared where some are left out
        largest = np.maximum(largest, 1 / _bets_on(m)[1])
    return (1 - STAKES + STAKES * largest[:, None]).ravel()


@functools.lru_cache(maxsize=32)
def _begins(m: int) -> Ints:
    """(3, 1) where each row of a (3, m) array begins in memory."""
    return m * np.arange(_SCORES)[:, None]


@functools.lru_cache(maxsize=32)
def _places(m: int) -> Floats:
    """(3 m,) the places in ascending order, from -1/2 to 1/2, for each of the scores."""
    return np.tile(np.arange(m) / max(m - 1, 1) - 0.5, _SCORES)


def _extreme(scores: Floats, bounds: Ints) -> npt.NDArray[np.bool_]:
    """(18, m): whether at most c scores are as large as each, itself included; then as small.

    At most c scores are >= s exactly if the one with c larger or equal ones before it in order is < s.

    Args:
        scores: (3, m).
        bounds: (2, 3, 3, 1) where in the sorted scores, counted through all of them, the scores are that are
            before and after so many; for each side, score and c.
    """
    m = scores.shape[1]
    table, (high, low) = scores[:, None, :], np.sort(scores, axis=1).take(bounds)
    hits = np.empty((2, _SCORES, _COUNTS, m), np.bool_)
    np.greater(table, high, out=hits[0])
    np.less(table, low, out=hits[1])
    return hits.reshape(-1, m)
