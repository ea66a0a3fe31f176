"""Clipping around the last result: a rule with memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from horovod_byz.aggregation.decision import Anchored, Decision, Weighted
from horovod_byz.aggregation.measure import Statistics
from horovod_byz.aggregation.source import Floats
from horovod_byz.aggregation.statistic import to_point
from horovod_byz.common.checks import count, positive
from horovod_byz.rules.base import Facts, StatedRule
from horovod_byz.rules.condition import Condition


@dataclass(frozen=True)
class CenteredClipping(StatedRule):
    """A centre that moves towards each row, by tau / n at most.

        v <- v + (1/n) sum_i (x_i - v) min(1, tau / |x_i - v|)

    The centre starts from the last result, and from zeros at first: the rule is a value as all rules are, and
    whoever applies it keeps the last result. `DistributedOptimizer` and `horovod-byz train` do, with its
    state in `state_dict` and checkpoints; a step that is left out changes nothing, `forget()` begins anew.
    Elsewhere it is an argument: `hb.aggregate(rows, rule, memory=last.value)`. Called alone, the rule starts
    from zeros. As a part of another rule it starts from that rule's last result.

    However large f is, Byzantine rows move the result by `iterations` f tau / n at most. That is small only
    for a tau near the distance of honest rows to the centre, which worker momentum makes small.

    Args:
        tau: the longest step of a row, in the gradient's unit, over 0.
        iterations: how often the centre moves, at least 1; each takes two passes over the rows.

    Tolerates: n > 10f, for a tau that fits the spread of honest rows. Cost: O(n d). Ties: none.
    Non-finite: row excluded; a row too far away for float64 to measure moves nothing.

    Raises:
        TypeError, ValueError: if a parameter is out of range.

    Examples:
        >>> import numpy as np
        >>> import horovod_byz as hb
        >>> rule, rows = CenteredClipping(tau=2.0), np.array([[1.0], [2.0], [1e9]])
        >>> first = hb.aggregate(rows, rule)
        >>> first.value, hb.aggregate(rows, rule, memory=first.value).value
        (array([1.66666667]), array([2.22222222]))

    Reference:
        Karimireddy, He, Jaggi (2021), Learning from history for Byzantine robust optimization, Algorithm 1
        and Theorem III.
    """

    tau: float
    iterations: int = 1

    condition: ClassVar[Condition] = Condition(10, 1)
    facts: ClassVar[Facts] = Facts(
        f"{condition}, for a tau that fits the honest rows", "O(n d)", "none", "row excluded"
    )
    symmetric: ClassVar[bool] = True
    remembers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "tau", positive(self, "tau", self.tau))
        object.__setattr__(self, "iterations", count(self, "iterations", self.iterations, least=1))

    def decide(self, statistics: Statistics) -> Decision:
        n, last, unit = statistics.n, statistics.memory, statistics.unit
        centre = np.concatenate([last[begin:end] for begin, end in statistics.shard.columns.ranges])
        # Finite distances show that rows are finite, which saves the pass that counts other values.
        squares = statistics.measured(to_point(centre))
        kept = statistics.finite
        decision = Anchored(np.zeros(len(kept)), last, 1.0)
        if len(kept):
            part = statistics if len(kept) == n else statistics.take(kept)
            decision = self._moved(part.lengths_to(centre, squares[:, [*kept, n]])[0], decision, unit)
            for _ in range(self.iterations - 1):
                squares = part.result(decision, centre)
                decision = self._moved(part.lengths_to(centre, squares)[0], decision, unit)
        if decision.share == 0.0:  # no row was cut: the mean, with its bits
            return Weighted(decision.weights).expand(n, kept)
        whole = last if unit == 1.0 or statistics.shard.memory is None else statistics.shard.memory
        return replace(decision, anchor=whole).expand(n, kept)

    def _moved(self, lengths: Floats, centre: Anchored, unit: float) -> Anchored:
        """The centre after one move, given the rows' distances to it in a unit."""
        tau, n = self.tau / unit, len(lengths)
        long = lengths > tau
        cut = np.where(long, tau / np.where(long, lengths, 1.0), 1.0)
        # Longer than float64 can say how long: it would be cut too little.
        cut[lengths >= np.finfo(np.float64).max] = 0.0
        stays = float((1.0 - cut).cumsum()[-1]) / n  # exactly 0 where no row is cut
        return Anchored(stays * centre.weights + cut / n, centre.anchor, stays * centre.share)
