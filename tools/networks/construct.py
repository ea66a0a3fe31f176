"""Builds comparator networks: pairwise (Parberry 1992) and odd-even merging (Batcher 1968).

A network is a list of comparators (a, b): the smaller value stays on wire a, the larger on wire b.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Comparator = tuple[int, int]


def pairwise(n: int) -> list[Comparator]:
    """Parberry's network that sorts n wires; it begins with comparisons at distances 1, 2, 4 and so on."""
    network, a = [], 1
    while a < n:
        b, c = a, 0
        while b < n:
            network.append((b - a, b))
            b, c = b + 1, (c + 1) % a
            if c == 0:
                b += a
        a *= 2
    a, e = a // 4, 1
    while a > 0:
        d = e
        while d > 0:
            b, c = (d + 1) * a, 0
            while b < n:
                network.append((b - d * a, b))
                b, c = b + 1, (c + 1) % a
                if c == 0:
                    b += a
            d //= 2
        a, e = a // 2, 2 * e + 1
    return network


def odd_even_merge(a: Sequence[int], b: Sequence[int]) -> tuple[list[Comparator], list[int]]:
    """Batcher's merge of two sorted sequences of wires, of any lengths; also the wires in their new order."""
    if not a or not b:
        return [], [*a, *b]
    if len(a) == len(b) == 1:
        return [(a[0], b[0])], [a[0], b[0]]
    first, even = odd_even_merge(a[::2], b[::2])
    second, odd = odd_even_merge(a[1::2], b[1::2])
    network, order = [*first, *second], [even[0]]
    for i in range(max(len(even) - 1, len(odd))):
        if i < len(odd) and i + 1 < len(even):
            network.append((odd[i], even[i + 1]))
        order += [*odd[i : i + 1], *even[i + 1 : i + 2]]
    return network, order


def merged(sequences: Iterable[Sequence[int]]) -> tuple[list[Comparator], list[int]]:
    """Sorted sequences of wires, merged two by two; also all wires in order."""
    runs, network = [list(run) for run in sequences if run], []
    while len(runs) > 1:
        pairs = [runs[i : i + 2] for i in range(0, len(runs), 2)]
        runs = []
        for pair in pairs:
            if len(pair) == 2:
                comparators, order = odd_even_merge(*pair)
                network += comparators
                runs.append(order)
            else:
                runs.append(pair[0])
    return network, runs[0] if runs else []


def without(
    network: Sequence[Comparator], lowest: Iterable[int], highest: Iterable[int]
) -> tuple[list[Comparator], dict[int, int]]:
    """The network where some wires hold -infinity and others +infinity: they need no comparators.

    Returns the rest, on the same wires, and for each wire the wire that holds its result there.
    """
    value = {**dict.fromkeys(lowest, -1), **dict.fromkeys(highest, 1)}  # by the wire of `network`
    where: dict[int, int] = {}  # wire of `network` -> wire of the result
    rest = []
    for a, b in network:
        at, to = where.get(a, a), where.get(b, b)
        if value.get(a, 0) == 0 and value.get(b, 0) == 0:
            rest.append((at, to))
        elif value.get(a, 0) > value.get(b, 0):  # they change places
            where[a], where[b] = to, at
            value[a], value[b] = value.get(b, 0), value.get(a, 0)
    return rest, where
