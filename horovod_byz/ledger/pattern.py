"""When a fault occurs: once in a while, at a period, or from a step on."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

__all__ = ["Pattern", "pattern"]

Name = Literal["transient", "periodic", "persistent"]

# Share of the steps at which a periodic or persistent fault shows: a flipped bit may leave a value as it was.
_MOST = 0.8
# Fewer occurrences show no period, and no persistence.
_FEWEST = 3
# Of so many, a file holds a selection: all of the first 100, and then the first two of each window.
_MANY = 100


@dataclass(frozen=True)
class Pattern:
    """When a fault occurs.

    Attributes:
        name: "transient": once, or some times without a period, or a burst that ended; "periodic": at four of
            five steps first, first + period, ... at least; "persistent": at four of five steps at least, from
            the first up to the run's end.
        period: steps from one occurrence to the next, of a periodic fault.
    """

    name: Name
    period: int | None = None

    def __str__(self) -> str:
        return self.name if self.period is None else f"{self.name} (every {self.period} steps)"


def pattern(steps: Iterable[int], end: int, count: int = 0) -> Pattern:
    """The pattern of a fault.

    Args:
        steps: the steps at which it was seen; where there are many, the first of them and a selection.
        end: the run's last step.
        count: at how many steps it was seen in all; 0 if that is not known.

    Raises:
        ValueError: if there are no steps.

    Examples:
        >>> for steps in ([412], [7, 14, 21, 28], range(5, 31)):
        ...     print(pattern(steps, end=30 if len(steps) > 1 else 900))
        transient
        periodic (every 7 steps)
        persistent
    """
    at = sorted(set(steps))
    if not at:
        raise ValueError("a pattern needs at least one step")
    if len(at) < _FEWEST:
        return Pattern("transient")
    period = math.gcd(*(b - a for a, b in pairwise(at)))
    first, last = at[0], at[-1]
    dense = max(count, len(at)) >= _MOST * ((last - first) / period + 1)
    if not count and len(at) >= _MANY:  # the later steps may be a selection: the first ones are not
        dense = _MOST * ((at[_MANY // 2 - 1] - first) / period + 1) <= _MANY // 2
    if period > 1:
        return Pattern("periodic", period) if dense else Pattern("transient")
    # A burst that ended long before the run did is over.
    over = end - last > max(2 if len(at) >= count else 20, (last - first) // 4)
    return Pattern("persistent") if dense and not over else Pattern("transient")
