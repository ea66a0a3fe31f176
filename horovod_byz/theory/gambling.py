"""The hits of the gambler attack: predicts which rules crash (Xie et al. 2018, section 5.5)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from horovod_byz.theory import checks
from horovod_byz.theory.normal import binomial_tail


@dataclass(frozen=True)
class Gamble:
    """A gambler on one server, for some rounds of training.

    Args:
        d: number of coordinates of the model.
        n: number of workers.
        servers: number of servers that share the coordinates evenly.
        probability: chance of each value to be hit.
        rounds: number of steps.
        nonzero: fraction of the attacked values that are not exactly zero; a hit on a zero is harmless.

    Raises:
        ValueError: if a number is not positive, or a fraction not in its range.
    """

    d: int
    n: int = 20
    servers: int = 20
    probability: float = 0.0005
    rounds: int = 500
    nonzero: float = 1.0

    def __post_init__(self) -> None:
        for name in ("d", "n", "servers", "rounds"):
            checks.positive(getattr(self, name), f"Gamble: {name}")
        checks.probability(self.probability, "Gamble: probability")
        if not 0 <= self.nonzero <= 1:
            raise ValueError(f"Gamble: nonzero must lie in [0, 1], got {self.nonzero}")

    @property
    def coordinates(self) -> float:
        """Coordinates on the attacked server, d / servers."""
        return self.d / self.servers

    @property
    def hits(self) -> float:
        """Expected number of hit values per round, over all workers."""
        return self.n * self.coordinates * self.probability

    @property
    def clean_worker(self) -> float:
        """Probability that a worker's row has no harmful hit in a round."""
        return math.exp(self.nonzero * self.coordinates * math.log1p(-self.probability))

    @property
    def clean_workers(self) -> float:
        """Expected number of workers without a harmful hit in a round."""
        return self.n * self.clean_worker

    @property
    def no_clean_worker(self) -> float:
        """Probability that in a round every row is hit, so that Krum and the medoid have no good choice."""
        return float((1 - self.clean_worker) ** self.n)

    @property
    def selection_crash(self) -> float:
        """Probability that some round leaves no clean row, so that a rule which selects a row crashes."""
        return _ever(self.no_clean_worker, self.rounds)

    def column_exceeds(self, f: int) -> float:
        """Returns the probability that one column has more than f hits in a round."""
        checks.counts(self.n, f, "Gamble")
        return binomial_tail(self.n, self.probability, f)

    def columns_exceeding(self, f: int) -> float:
        """Returns the expected number of columns with more than f hits, over all rounds."""
        return self.rounds * self.coordinates * self.column_exceeds(f)

    def coordinate_crash(self, f: int) -> float:
        """Returns the probability that more than f hits ever meet in a column: MeanAroundMedian crashes."""
        return _ever(self.column_exceeds(f), self.rounds * self.coordinates)


def _ever(chance: float, trials: float) -> float:
    # 1 - (1 - chance)^trials without cancellation for a tiny chance
    return 1.0 if chance >= 1 else -math.expm1(trials * math.log1p(-chance))
