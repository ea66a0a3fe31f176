"""Which rank holds which workers: worker indices are rank-major, rank 0's logical workers first."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """The workers of a job.

    Attributes:
        rows: how many logical workers each rank holds, in rank order.
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


def split(total: int, size: int) -> tuple[int, ...]:
    """Spreads `total` workers over `size` ranks, the lower ranks getting one more where needed.

    Examples:
        >>> split(45, 2)
        (23, 22)
    """
    return tuple(total // size + (rank < total % size) for rank in range(size))
