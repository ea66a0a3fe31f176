"""The rows of least diameter: an exact search by vertex covers of the pairs that lie too far apart."""

from __future__ import annotations

import numpy as np

from horovod_byz.aggregation.source import Floats, Ints

# A set of rows as the bits of a whole number.
_Set = int


def closest(distances: Floats, size: int) -> Ints:
    """The rows of the subset of this size whose largest distance is least, ascending.

    A subset of n - f rows has a diameter of at most t if f rows meet every pair farther apart than t: they
    are a vertex cover of the graph of these pairs. Whether there is one is decided by branching, with at most
    1.47^f leaves, and t is found by bisection over the distances.

    Args:
        distances: (n, n) squared distances.
        size: number of rows, 1 to n.

    Returns:
        Of equal diameters the first subset in lexicographic order.
    """
    n = len(distances)
    pairs = np.unique(distances[np.triu_indices(n, 1)]) if size > 1 else np.zeros(1)
    # Each row of the subset has size - 1 others within the diameter.
    low = int(np.searchsorted(pairs, np.sort(distances, axis=1)[:, size - 1].min()))
    high = len(pairs) - 1
    everyone = (1 << n) - 1
    while low < high:
        middle = (low + high) // 2
        if coverable(_apart(distances, float(pairs[middle])), everyone, n - size):
            high = middle
        else:
            low = middle + 1
    return _first(_apart(distances, float(pairs[low])), n, size)


def _apart(distances: Floats, limit: float) -> list[_Set]:
    """For each row the rows that are farther from it than the limit."""
    return [sum(1 << int(j) for j in np.flatnonzero(row > limit)) for row in distances]


def _first(apart: list[_Set], n: int, size: int) -> Ints:
    """The first subset in lexicographic order without a pair in `apart`: each row is kept if it can be."""
    kept: list[int] = []
    left, budget = (1 << n) - 1, n - size
    for row in range(n):
        if len(kept) == size:
            break
        if not left >> row & 1:  # too far from a row that is kept
            continue
        left &= ~(1 << row)
        against = apart[row] & left
        if coverable(apart, left & ~against, budget - against.bit_count()):
            kept.append(row)
            left, budget = left & ~against, budget - against.bit_count()
        else:
            budget -= 1
    return np.array(kept, np.int64)


def coverable(apart: list[_Set], left: _Set, budget: int) -> bool:
    """Whether at most `budget` of the rows meet every pair that lies apart.

    Args:
        apart: for each row the rows that lie apart from it.
        left: the rows to look at.
        budget: how many rows may be taken out.
    """
    while budget >= 0:
        degrees = {row: near for row in _members(left) if (near := (apart[row] & left).bit_count())}
        if not degrees:
            return True
        most = max(degrees, key=degrees.__getitem__)
        degree = degrees[most]
        if sum(degrees.values()) > 2 * budget * degree:
            return False
        if degree > budget or degree <= 2:
            # Beyond the budget a row must go itself. With one or two pairs each, the rows form paths and
            # rings: the neighbour of an end may go, and any row of a ring.
            ends = [row for row, near in degrees.items() if near == 1]
            goes = (apart[ends[0]] & left) if degree <= 2 and ends else 1 << most
            left, budget = left & ~goes, budget - 1
            continue
        against = apart[most] & left
        if coverable(apart, left & ~against & ~(1 << most), budget - degree):
            return True
        left, budget = left & ~(1 << most), budget - 1
    return False


def _members(rows: _Set) -> list[int]:
    members = []
    while rows:
        lowest = rows & -rows
        members.append(lowest.bit_length() - 1)
        rows ^= lowest
    return members
