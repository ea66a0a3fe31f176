"""The condition on n and f of a rule: stated once per rule, and read by everything else."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Condition:
    """A rule covers f Byzantine rows among n if n >= slope f + offset.

    These two numbers determine the least n, the largest f, the text and the error of a rule.

    Args:
        slope: additional rows for each Byzantine row; math.inf if no number of rows covers any.
        offset: rows needed for f = 0, at least 1.

    Examples:
        >>> krum = Condition(2, 3)
        >>> str(krum), krum.least_n(4), krum.largest_f(20)
        ('n > 2f + 2', 11, 8)
    """

    slope: float
    offset: int = 1

    @property
    def bound(self) -> str:
        """The number that n must exceed, such as "2f + 2"; empty if f must be 0."""
        if math.isinf(self.slope):
            return ""
        return f"{self.slope:g}f" + (f" + {self.offset - 1}" if self.offset > 1 else "")

    def __str__(self) -> str:
        return f"n > {self.bound}" if self.bound else "f = 0"

    def least_n(self, f: int) -> float:
        """The smallest number of rows that covers f Byzantine ones; math.inf if none does."""
        # Not inf * 0, which is NaN.
        return self.offset + self.slope * f if f else self.offset

    def largest_f(self, n: int) -> int:
        """The largest f that n rows cover; -1 if n rows are too few for f = 0."""
        if n < self.offset:
            return -1
        return int((n - self.offset) // self.slope)

    def least_uncovered_f(self, n: int) -> int:
        """The smallest f that n rows do not cover: in a vote, the replicas needed to void or win it."""
        return self.largest_f(n) + 1

    def holds(self, n: int, f: int) -> bool:
        """Whether n rows cover f Byzantine ones."""
        return n >= self.least_n(f)

    def check(self, n: int, f: int, what: str) -> None:
        """Checks that n rows cover f Byzantine ones.

        Args:
            n: number of rows.
            f: number of Byzantine rows.
            what: the rule or the theorem, for the message.

        Raises:
            ValueError: if they do not; the message names the remedy.
        """
        if self.holds(n, f):
            return
        needed, most = self.least_n(f), self.largest_f(n)
        limit = f" = {int(needed) - 1} rows" if self.bound else ""
        remedies = [f"f {'=' if most == 0 else '<='} {most}"] if most >= 0 else []
        if math.isfinite(needed):
            remedies.append(f"at least {int(needed)} workers")
        raise ValueError(f"{what} needs {self}{limit}, got n = {n}: use {' or '.join(remedies)}")


# An honest majority: a rule that treats all rows alike cannot distinguish two equal halves.
MAJORITY = Condition(2, 1)
NO_FAULTS = Condition(math.inf, 1)
