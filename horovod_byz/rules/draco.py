"""DRACO: redundancy from which the exact mean of all batches is recovered, whatever f workers send."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from horovod_byz.aggregation import reach
from horovod_byz.aggregation import rows as reading
from horovod_byz.aggregation.decision import Decision, Virtual, Weighted
from horovod_byz.aggregation.measure import Statistics
from horovod_byz.aggregation.source import Floats, Ints, Source
from horovod_byz.common.checks import count, fraction
from horovod_byz.redundancy.groups import Redundancy
from horovod_byz.rules import cyclic
from horovod_byz.rules.base import BoundedRule, Facts, Rule
from horovod_byz.rules.condition import MAJORITY, Condition
from horovod_byz.rules.detox import Detox
from horovod_byz.rules.mean import Mean

# Allowed rounding of a row, in units of the dtype's eps and of the median row's length. Workers that
# sum their batches in float64 and round once stay below 1; sums in the row's own dtype stay below 10.
_UNITS = 64.0

# A row this many times as long as the median row cannot be an average of similar gradients. It is erased at
# once, since its rounding would hide a liar of ordinary size.
_ABSURD = 1e6


@dataclass(frozen=True)
class Draco(BoundedRule):
    """The mean of all batches, from workers that compute r = 2f + 1 batches' worth each.

    "repetition": groups of r workers compute the same batch and send its gradient; the result is the mean
    of the groups' majority votes, as `Detox(redundancy, Mean(), Mean())`. Exact: bits are compared.

    "cyclic": there are n batches; worker i computes r of them and sends one row, the sum of their gradients
    weighted by its row of `coefficients(n)`. The Byzantine rows are found from the code's parity checks and
    left out, and a weighted sum of the other rows is the mean of the n gradients. The code is real, so rows
    have d coordinates, half of the complex ones of the paper.

    The cyclic code's error: rows of dtype eps and length at most L are rounded, so the result is off by at
    most eps L A in the Euclidean norm, with A = `amplification(n)`: 1 without liars; 6 for 20 workers and
    f = 3, 254 for 45 and f = 5, where f liars are neighbours in the code. `seed` shuffles the workers, and
    99 of 100 shuffled sets of liars give less than 10. A row that was changed by less than the tolerance
    times sqrt(n / f) is not found, and moves the result by less than A times that. Which rows are named is
    certain where they were changed by more than tolerance / separation; see `rules.cyclic.separation`.

    Args:
        f: Byzantine workers to tolerate; each of them may send anything.
        code: "repetition" or "cyclic".
        seed: seed of the partition into groups, or of the workers' places in the cyclic code.
        tolerance: rounding that the cyclic code allows a row, relative to the median length of a row; default
            64 eps of the rows' dtype. Without effect for the repetition code.

    Tolerates: n > 2f. Cost: O(n d) for repetition, O(n f d) for the cyclic code. Ties: fewest rows that
    explain the syndrome. Non-finite: row erased, and counted among the f. Where more than f rows were wrong,
    the result is zero and all rows are marked as outvoted, since the wrong ones cannot be identified.

    Raises:
        ValueError: if called on fewer than 2f + 1 rows.

    Examples:
        >>> import numpy as np
        >>> import horovod_byz as hb
        >>> rule = hb.Draco(f=1, code="cyclic")
        >>> batches = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0], [9.0, 10.0]])
        >>> rows = np.stack([rule.encode(batches[list(rule.batches(i, 5))], i, 5) for i in range(5)])
        >>> rows[3] = 1e30
        >>> rule(rows).round(9)
        array([5., 6.])

    Reference:
        Chen, Wang, Charles, Papailiopoulos (2018), DRACO: Byzantine-resilient Distributed Training via
        Redundant Gradients, sections 4.1 and 4.2.
    """

    code: Literal["repetition", "cyclic"] = "repetition"
    seed: int = 0
    tolerance: float | None = None

    condition: ClassVar[Condition] = MAJORITY
    facts: ClassVar[Facts] = Facts(str(condition), "O(n d), cyclic O(n f d)", "fewest rows", "row erased")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.code not in ("repetition", "cyclic"):
            raise ValueError(f"Draco: code must be 'repetition' or 'cyclic', got {self.code!r}")
        object.__setattr__(self, "seed", count(self, "seed", self.seed))
        if self.tolerance is not None:
            object.__setattr__(self, "tolerance", fraction(self, "tolerance", self.tolerance))

    @property
    def r(self) -> int:
        """Number of workers that compute each batch: 2f + 1."""
        return int(self.condition.least_n(self.f))

    @property
    def redundancy(self) -> Redundancy:
        """The groups of the repetition code, whose sampler serves its workers."""
        return Redundancy(self.r, seed=self.seed)

    def batch_count(self, n: int) -> int:
        """Number of different batches in a step of n workers; the result is their gradients' mean."""
        return n if self.code == "cyclic" else len(self.redundancy.groups_of(n))

    def coefficients(self, n: int) -> Floats:
        """The code: worker i sends the sum over k of coefficient [i, k] times the gradient of batch k.

        Returns:
            (n, batch_count(n)) float64. For the repetition code 1 at the group of each worker. For the cyclic
            code every column has 2f + 1 entries and adds up to 1.

        Raises:
            ValueError: if n is not over 2f.
        """
        self.check(n)
        if self.code == "cyclic":
            return cyclic.coefficients(n, self.f)[self._places(n)]
        groups = self.redundancy.groups_of(n)
        sent = np.zeros((n, len(groups)))
        for k, group in enumerate(groups):
            sent[list(group), k] = 1.0
        return sent

    def batches(self, worker: int, n: int) -> tuple[int, ...]:
        """The batches of a worker, ascending, out of 0 .. batch_count(n) - 1."""
        if not 0 <= worker < n:
            raise ValueError(f"worker {worker} is not among the {n} workers 0..{n - 1}")
        return tuple(np.flatnonzero(self.coefficients(n)[worker]).tolist())

    def encode(self, gradients: Any, worker: int, n: int) -> Any:
        """The row that a worker sends, added up in float64 and rounded once.

        Args:
            gradients: (len(batches), d) array or tensor, or a sequence of one-dimensional ones: the gradients
                of `batches(worker, n)` in that order.
            worker: the worker.
            n: number of workers.

        Returns:
            (d,) of the gradients' type and dtype.

        Raises:
            ValueError: if the number of gradients is not that of the batches.
        """
        source, restore = reading.read(gradients)
        row = self.coefficients(n)[worker]
        if source.n != np.count_nonzero(row):
            raise ValueError(
                f"Draco: worker {worker} of {n} sends {np.count_nonzero(row)} batches in one row, got "
                f"{source.n} gradients: give those of {self.batches(worker, n)}"
            )
        out = np.empty(source.d, source.dtype)
        source.combine(Weighted(row[row != 0]), out, threads=1)
        return restore(out)

    def amplification(self, n: int) -> float:
        """The largest factor of decoding on rounding errors of rows; 1 for the repetition code."""
        return cyclic.amplification(n, self.f) if self.code == "cyclic" and self.f else 1.0

    def decide(self, statistics: Statistics) -> Decision:
        if self.code == "repetition":
            return self._voting.decide(statistics)
        n, places = statistics.n, self._places(statistics.n)
        erased = self._erased(statistics, places)
        if erased is None:
            return Weighted.uniform(n, [], outvoted=np.arange(n, dtype=np.int64))
        weights = cyclic.recovery(n, self.f, erased)[places]
        return Weighted(weights, np.flatnonzero(np.isin(places, erased)).astype(np.int64))

    @property
    def _voting(self) -> Detox:
        return Detox(self.redundancy, Mean(), Mean())

    def without(self, workers: Sequence[int], n: int) -> Rule:
        if self.code == "cyclic":
            raise ValueError(
                "the cyclic code needs a row of every worker, and erases wrong ones at each step by itself: "
                "keep the worker, or start again with fewer workers"
            )
        return self._voting.without(workers, n)

    def dissenting(self, statistics: Statistics, decision: Decision, workers: Sequence[int]) -> Ints:
        return self._voting.dissenting(statistics, decision, workers)

    def _places(self, n: int) -> npt.NDArray[np.intp]:
        """Each worker's place in the cyclic code."""
        return np.random.default_rng([self.seed, 0xD2AC]).permutation(n)

    def _erased(self, statistics: Statistics, places: npt.NDArray[np.intp]) -> tuple[int, ...] | None:
        """The places of the wrong rows, or None if there are more than f.

        Locates liars, erases them and searches again, since the rounding of a pass is relative to its largest
        row.
        """
        n = statistics.n
        squares = statistics.squared_norms  # first, since finite norms show finite rows
        finite = statistics.nonfinite == 0
        if finite.any() and reach.core(squares[finite])[1] > reach.NEAR:
            statistics = statistics.scaled
            squares = statistics.squared_norms
        lengths = np.sqrt(squares)
        sound = finite & (squares <= reach.FAR)
        if n - int(sound.sum()) > self.f:
            return None
        # The lower median: with at most f <= (n - 1) / 2 liars it is bounded by an honest row's length.
        usual = float(np.sort(lengths[sound])[(int(sound.sum()) - 1) // 2])
        absurd = sound & (lengths > _ABSURD * usual)
        # Only if f allows it: where honest rows differ that much, the parity checks must decide.
        if n - int((sound & ~absurd).sum()) <= self.f:
            sound &= ~absurd
        limit = (self._relative(statistics.source) * usual) ** 2
        erased = tuple(sorted(int(place) for place in places[~sound]))
        while self.f:
            basis, checks = cyclic.checks_without(n, self.f, erased)
            # As weights of the workers' rows; divided by n, so that no sum of finite rows can overflow.
            inner = _gram(statistics, np.ascontiguousarray(checks[:, places]) / (2 * n)) * (2 * n) ** 2
            gram = basis @ inner @ basis.T
            liars = cyclic.locate(gram, n, self.f, erased, limit * n)
            if liars is None:
                return None
            if not liars:
                break
            erased = tuple(sorted(erased + liars))
        return erased

    def _relative(self, source: Source) -> float:
        if self.tolerance is not None:
            return self.tolerance
        return _UNITS * float(np.finfo(source.dtype).eps)


def _gram(statistics: Statistics, checks: Floats) -> Floats:
    """Inner products of weighted sums of the rows, from the squared distances between them and from zero."""
    zero = np.zeros((1, checks.shape[1]))
    sums = [Weighted(weights) for weights in np.concatenate([checks, zero])]
    # The sums are rounded to the rows' dtype, which costs no accuracy: it is relative to the sums, which are
    # themselves as small as the rounding of the rows without liars. Their distances need float64.
    apart = statistics.over(Virtual(statistics.source, sums, dtype=np.float64)).distances
    length = apart[-1, :-1]
    inner: Floats = 0.5 * (length[:, None] + length[None, :] - apart[:-1, :-1])
    return inner
