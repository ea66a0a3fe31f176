"""Proves that a network of the table selects the middle ranks of n values, by the 0-1 principle.

Comparators put rank r of n values (0 the lowest) on a wire if they do so for values of 0 and 1: the wire must
then hold 1 where at least n - r inputs are 1, and 0 elsewhere. Raising an input never lowers an output, so
inputs with n - r - 1 and n - r ones decide. What the locked comparators leave of these is enumerated, one
connected component of wires at a time; the other comparators run on all these states at once, a bit each.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
import numpy.typing as npt
from table import Comparator, Network, middle_ranks

Masks = npt.NDArray[np.uint64]
States = dict[int, Masks]  # number of ones among the inputs -> what the wires hold, a bit each


def _unique(states: States) -> States:
    return {ones: np.unique(masks) for ones, masks in states.items()}


def _joined(x: States, y: States, wanted: range | set[int]) -> States:
    """Two independent components in any two of their states, where the ones together are a wanted number."""
    made: dict[int, list[Masks]] = {}
    for ones, masks in x.items():
        for more, others in y.items():
            if ones + more in wanted:
                made.setdefault(ones + more, []).append((masks[:, None] | others).ravel())
    return {ones: np.concatenate(masks) for ones, masks in made.items()}


def _compare(states: States, a: int, b: int) -> None:
    low, high, bit = np.uint64(a), np.uint64(b), np.uint64(1)
    for masks in states.values():
        swap = (masks >> low) & ~(masks >> high) & bit
        masks ^= (swap << low) | (swap << high)


def reached(comparators: Sequence[Comparator], n: int, decisive: set[int]) -> States:
    """What the comparators leave of all inputs of n bits with a decisive number of ones."""
    part = {i: [i] for i in range(n)}  # wire -> the wires of its component, the same list for all of them
    states: dict[int, States] = {
        i: {0: np.zeros(1, np.uint64), 1: np.array([1 << i], np.uint64)} for i in range(n)
    }
    for a, b in comparators:
        x, y = part[a], part[b]
        if x is not y:
            wanted = decisive if len(x) + len(y) == n else range(n + 1)
            states[x[0]] = _joined(_unique(states[x[0]]), _unique(states.pop(y[0])), wanted)
            x += y
            part.update(dict.fromkeys(y, x))
        _compare(states[x[0]], a, b)
    # The largest come last, since only there the number of ones is known.
    parts = sorted(map(_unique, states.values()), key=lambda each: sum(map(len, each.values())))
    if len(parts) > 1:
        parts[-1] = _joined(reduce(lambda x, y: _joined(x, y, range(n + 1)), parts[:-1]), parts[-1], decisive)
    return {ones: masks for ones, masks in parts[-1].items() if ones in decisive}


def prove(network: Network) -> int:
    """Prove a median network.

    Returns:
        How many states it was tried on.

    Raises:
        ValueError: it does not select the middle ranks.
    """
    n, ranks = network.n, middle_ranks(network.n)
    decisive = {ones for rank in ranks for ones in (n - 1 - rank, n - rank)}
    tried = 0
    for ones, masks in reached(network.comparators[: network.locked], n, decisive).items():
        tried += len(masks)
        wires = [np.packbits((masks >> np.uint64(i) & np.uint64(1)).astype(bool)) for i in range(n)]
        for a, b in network.comparators[network.locked :]:
            wires[a], wires[b] = wires[a] & wires[b], wires[a] | wires[b]
        for rank, wire in zip(ranks, network.outputs, strict=True):
            values = np.unpackbits(wires[wire], count=len(masks))
            if ones in (n - 1 - rank, n - rank) and not np.all(values == (ones == n - rank)):
                raise ValueError(f"the network of {n} rows does not leave rank {rank} on wire {wire}")
    return tried
