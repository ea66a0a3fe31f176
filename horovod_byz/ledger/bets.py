"""Money that is bet against the claim that a worker is honest: a nonnegative supermartingale if it is.

A bettor starts with 1 for each worker. The experts of `Bets` each bet at every step on one event that an
honest worker meets with probability u at most, given the past. An expert that stakes the share s has

    1 - s            times its money after a miss,
    1 - s + s / u    times its money after a hit:

at most 1 on average for an honest worker. So is the mean over experts, which each start with a share, and
over the steps at which they start: the share 1/log2(t + 1) - 1/log2(t + 2) enters at step t = 1, 2, ... A
worker that turns wrong at step t thus costs the bettor the factor of about t log(t)^2 / 2 only, where an
expert that has been betting since step 1 would have lost everything. By Ville's inequality the money of an
honest worker ever reaches c with probability 1 / c at most: valid at every step, however long the run.

Reference: Ville (1939); Shafer (2021), Testing by betting; Waudby-Smith, Ramdas (2024), Estimating means of
bounded random variables by betting.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["STAKES", "TOGETHER", "Bets", "entering", "steps_below"]

Floats = npt.NDArray[np.float64]
Hits = npt.NDArray[np.bool_]

# Shares of its money that an expert stakes: small ones win against rare events, large ones are quick.
STAKES = np.array([0.1, 0.4, 0.9])
# Steps that a test looks at together at most, where nobody can be named in between.
TOGETHER = 20
# Of a limit that money must stay below: far more than rounding adds to a sum.
_SAFE = 1 - 1e-6
# Money beyond this is forgotten, which only lowers it: a product of a billion steps stays finite.
_MOST = 1e200


class Bets:
    """The money of each worker's bettors.

    Args:
        events: how many events are bet on at each step.

    Attributes:
        step: steps bet on.
    """

    def __init__(self, events: int) -> None:
        self.events, self.step = events, 0
        self._money = np.zeros((0, events * len(STAKES)))  # (workers, experts)
        self._most = 0.0  # no expert has more
        self._total: Floats | None = None  # what `money` returns, until the next bet

    def bet(self, workers: npt.NDArray[np.intp], hits: Hits, chances: Floats) -> None:
        """One step.

        Args:
            workers: (m,) the workers that are bet on, ascending; the others keep their money.
            hits: (m, events) whether a worker met the event.
            chances: (events,) the largest probability of each event for an honest worker; 1 means no bet.
        """
        self.step += 1
        self._total = None
        self._grow(int(workers[-1]) + 1 if len(workers) else 0)
        enters = entering(self.step) / self._money.shape[1]
        self._money += enters
        won, lost, most = _factors(chances.tobytes())
        factors = np.where(hits[:, :, None], won, lost).reshape(len(workers), -1)
        if len(workers) == len(self._money):  # all of them: no copy of the money
            self._money *= factors
        else:
            self._money[workers] *= factors
        self._most = (self._most + enters) * most
        if self._most >= _MOST / 2:  # rounding is far below a half
            np.minimum(self._money, _MOST, out=self._money)
            self._most = float(self._money.max(initial=0.0))

    def money(self) -> Floats:
        """(workers,) what each worker's bettors have: the e-value."""
        if self._total is None:
            self._total = np.add.reduce(self._money, axis=1)
            self._total += 1 / math.log2(self.step + 2)
        return self._total

    def restart(self, worker: int) -> None:
        """Gives a worker's bettors what one that comes now has."""
        if worker < len(self._money):
            self._money[worker] = (1 - 1 / math.log2(self.step + 2)) / self._money.shape[1]
            self._most, self._total = max(self._most, float(self._money[worker, 0])), None

    def steps_below(self, limit: float, growth: Floats) -> int:
        """The number of further steps, up to `TOGETHER`, after which no worker can have `limit`.

        Args:
            limit: what nobody reaches.
            growth: (experts,) by how much a step multiplies an expert's money at most.
        """
        # A worker that is new has what entered so far, at most 1.
        most = self._money.max(axis=0, initial=1 / self._money.shape[1])
        return steps_below(limit, most, growth, self.step)

    def of(self, worker: int) -> float:
        """The money of one worker."""
        return float(self.money()[worker]) if worker < len(self._money) else 1.0

    def _grow(self, n: int) -> None:
        missing = n - len(self._money)
        if missing > 0:
            # A worker that comes later has not lost what was entered before; it was not bet.
            entered = (1 - 1 / math.log2(self.step + 1)) / self._money.shape[1]
            self._money = np.vstack([self._money, np.full((missing, self._money.shape[1]), entered)])
            self._most = max(self._most, entered)

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"step": self.step, "money": self._money.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what `state_dict` gave; leaves aside a state with other events."""
        money = np.asarray(state["money"], np.float64)
        if money.ndim == 2 and money.shape[1] == self._money.shape[1]:
            self.step, self._money, self._total = int(state["step"]), money, None
            self._most = float(money.max(initial=0.0))


@functools.lru_cache(maxsize=128)
def _factors(chances: bytes) -> tuple[Floats, Floats, float]:
    """What a win and a loss multiply the money of each event and stake by, and the largest of the factors.

    Args:
        chances: the bytes of the events' chances.
    """
    chance = np.frombuffer(chances)[:, None]
    stakes = np.where(chance < 1, STAKES, 0.0)  # (events, stakes)
    won = 1 - stakes + stakes / chance
    return won, 1 - stakes, float(won.max(initial=1.0))


def steps_below(limit: float, money: Floats, growth: Floats, step: int) -> int:
    """The number of steps after `step`, up to `TOGETHER`, at which all the money must stay below a limit.

    Args:
        limit: what is not reached.
        money: (experts,) what each has.
        growth: (experts,) by how much a step multiplies it at most.
        step: steps bet on.
    """
    enters, rest = entering(step + 1) / money.size, 1 / math.log2(step + 2)  # both become less
    for ahead in range(TOGETHER):
        money = (money + enters) * growth
        if not money.sum() + rest < limit * _SAFE:
            return ahead
    return TOGETHER


def entering(step: int) -> float:
    """The share that starts to bet at a step, from 1; over all steps they add up to 1."""
    return 1 / math.log2(step + 1) - 1 / math.log2(step + 2)
