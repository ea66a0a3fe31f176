"""Coordinate-wise rules: each coordinate of the result depends on that coordinate of the rows only.

They tolerate the dimensional threat model too: f Byzantine values in each coordinate, in any rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from horovod_byz.aggregation.decision import Coordinatewise, Decision, Kernel
from horovod_byz.aggregation.measure import Statistics
from horovod_byz.rules.base import VALUE_EXTREME, BoundedRule, Facts, StatedRule
from horovod_byz.rules.condition import MAJORITY, Condition


def _over_all(kernel: Kernel, statistics: Statistics, f: int = 0) -> Decision:
    return Coordinatewise(kernel, np.arange(statistics.n, dtype=np.int64), statistics.n, f)


@dataclass(frozen=True)
class Median(StatedRule):
    """The coordinate-wise (marginal) median; for an even n the mean of the middle two values.

    Tolerates: n > 2f, values or rows. Cost: O(n log^2 n) comparisons of whole SIMD vectors per
    vector of coordinates, linear in d. Ties: none. Non-finite: the value counts as an extreme one.

    Examples:
        >>> import numpy as np
        >>> Median()(np.array([[1.0, 9.0], [2.0, 7.0], [100.0, 8.0]]))
        array([2., 8.])

    Reference:
        Xie, Koyejo, Gupta (2018), Generalized Byzantine-tolerant SGD, Definition 7.
    """

    condition: ClassVar[Condition] = MAJORITY
    facts: ClassVar[Facts] = Facts(str(condition), "O(d n log^2 n)", "none", VALUE_EXTREME)
    symmetric: ClassVar[bool] = True

    def decide(self, statistics: Statistics) -> Decision:
        return _over_all("median", statistics)


@dataclass(frozen=True)
class TrimmedMean(BoundedRule):
    """Per coordinate, the mean without the f lowest and the f highest values.

    Args:
        f: number of values trimmed at each end, 2f < n.

    Tolerates: n > 2f, values or rows. Cost: as Median. Ties: none. Non-finite: extreme value.

    Raises:
        ValueError: if called on n <= 2f rows.

    Examples:
        >>> import numpy as np
        >>> TrimmedMean(f=1)(np.array([[1.0], [2.0], [4.0], [1e9]]))
        array([3.])

    Reference:
        Yin, Chen, Ramchandran, Bartlett (2018), Definition 2; Rajput et al. (2019), Theorem 3.
    """

    condition: ClassVar[Condition] = MAJORITY
    facts: ClassVar[Facts] = Facts(str(condition), "O(d n log^2 n)", "none", VALUE_EXTREME)
    symmetric: ClassVar[bool] = True

    def decide(self, statistics: Statistics) -> Decision:
        return _over_all("trimmed_mean", statistics, self.f)


@dataclass(frozen=True)
class MeanAroundMedian(BoundedRule):
    """Per coordinate, the mean of the n - f values nearest to the median.

    Args:
        f: number of values left out, 2f < n.

    Tolerates: n > 2f, values or rows. Cost: as Median. Ties: of two windows of the sorted values
    equally near, the lower. Non-finite: extreme value.

    Raises:
        ValueError: if called on n <= 2f rows.

    Examples:
        >>> import numpy as np
        >>> MeanAroundMedian(f=1)(np.array([[1.0], [2.0], [3.0], [1e9]]))
        array([2.])

    Reference:
        Xie, Koyejo, Gupta (2018), Generalized Byzantine-tolerant SGD, Definition 8.
    """

    condition: ClassVar[Condition] = MAJORITY
    facts: ClassVar[Facts] = Facts(str(condition), "O(d n log^2 n)", "lower window", VALUE_EXTREME)
    symmetric: ClassVar[bool] = True

    def decide(self, statistics: Statistics) -> Decision:
        return _over_all("mean_around_median", statistics, self.f)


@dataclass(frozen=True)
class Phocas(BoundedRule):
    """Per coordinate, the mean of the n - f values nearest to the trimmed mean.

    Args:
        f: number of values left out, and trimmed at each end for the trimmed mean, 2f < n.

    Tolerates: n > 2f, values or rows. Cost: as Median. Ties: of two windows of the sorted values
    equally near, the lower. Non-finite: extreme value.

    Raises:
        ValueError: if called on n <= 2f rows.

    Examples:
        >>> import numpy as np
        >>> Phocas(f=1)(np.array([[1.0], [2.0], [6.0], [7.0], [1e9]]))
        array([4.])

    Reference:
        Xie, Koyejo, Gupta (2018), Phocas: dimensional Byzantine-resilient stochastic gradient descent,
        Definition 8.
    """

    condition: ClassVar[Condition] = MAJORITY
    facts: ClassVar[Facts] = Facts(str(condition), "O(d n log^2 n)", "lower window", VALUE_EXTREME)
    symmetric: ClassVar[bool] = True

    def decide(self, statistics: Statistics) -> Decision:
        return _over_all("phocas", statistics, self.f)


@dataclass(frozen=True)
class SignMajority(StatedRule):
    """The majority vote of signs: sign(sum_i sign(v_i)) per coordinate, one of -1, 0, 1.

    Zeros and NaN do not vote, and a tie gives 0.

    Tolerates: n > 2f. Cost: O(n d). Ties: 0. Non-finite: NaN does not vote, Inf votes its sign.

    Examples:
        >>> import numpy as np
        >>> SignMajority()(np.array([[0.1, -5.0], [0.2, 3.0], [-9.0, 0.0]]))
        array([1., 0.])

    Reference:
        Bernstein, Wang, Azizzadenesheli, Anandkumar (2018); Rajput et al. (2019), section 5.
    """

    condition: ClassVar[Condition] = MAJORITY
    facts: ClassVar[Facts] = Facts(str(condition), "O(n d)", "0", "NaN does not vote, Inf votes its sign")
    symmetric: ClassVar[bool] = True

    def decide(self, statistics: Statistics) -> Decision:
        return _over_all("sign_majority", statistics)
