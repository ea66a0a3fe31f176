"""The assignment of workers to ranks: indices are rank-major, rank 0's logical workers first."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

# Horovod counts rows and elements in C ints.
_MOST = 2**31 - 1


@dataclass(frozen=True)
class Layout:
    """The workers of a job.

    Attributes:
        rows: number of logical workers of each rank, in rank order.
    """

    rows: tuple[int, ...]

    @property
    def n(self) -> int:
        """Number of workers."""
        return sum(self.rows)

    @property
    def size(self) -> int:
        """Number of ranks."""
        return len(self.rows)

    def workers(self, rank: int) -> range:
        """Indices of the workers on a rank."""
        first = sum(self.rows[:rank])
        return range(first, first + self.rows[rank])


def agreed(workers: int | Sequence[int] | Layout, size: int) -> Layout:
    """The layout from this rank's own configuration, never from announcements.

    Args:
        workers: the number of workers of every rank, or each rank's in rank order.
        size: number of ranks.

    Raises:
        TypeError: if a number is no integer.
        ValueError: if a number is negative or too large, or there is not one for each rank.
    """
    if isinstance(workers, Layout):
        workers = workers.rows
    numbers = tuple(workers) if isinstance(workers, Sequence) else (workers,) * size
    try:
        rows = tuple(operator.index(k) for k in numbers)
    except TypeError:
        raise TypeError(
            f"local_workers must be a whole number, or a tuple of one per rank, got {workers!r}"
        ) from None
    if len(rows) != size:
        raise ValueError(f"local_workers must have one number per rank, {size} in all, got {rows}")
    if any(not 0 <= k <= _MOST for k in rows):
        raise ValueError(f"bind needs local_workers from 0 to {_MOST} on each rank, got {workers}")
    return Layout(rows)


def split(total: int, size: int) -> tuple[int, ...]:
    """Spreads `total` workers over `size` ranks, the lower ranks getting one more where needed.

    Examples:
        >>> split(45, 2)
        (23, 22)
    """
    return tuple(total // size + (rank < total % size) for rank in range(size))
