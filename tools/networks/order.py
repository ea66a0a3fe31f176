"""Orders the comparators of a network so that few values are live at once, since registers are few."""

from __future__ import annotations

import random
from collections.abc import Sequence

from table import Comparator, kept

TRIES = 6  # different ways to break ties


def _queues(comparators: Sequence[Comparator], n: int) -> list[list[int]]:
    """For each wire the comparators that read it, in order."""
    queue: list[list[int]] = [[] for _ in range(n)]
    for i, pair in enumerate(comparators):
        for wire in pair:
            queue[wire].append(i)
    return queue


def greedy(comparators: Sequence[Comparator], outputs: Sequence[int], n: int, seed: int) -> list[int]:
    """Each time the comparator that adds the fewest live values, then one whose operands are recent."""
    rng, queue, at = random.Random(seed), _queues(comparators, n), [0] * n
    results = [low + high for low, high in kept(comparators, outputs)]
    written, order = [-1] * n, []
    noise = [rng.random() for _ in comparators]
    for step in range(len(comparators)):
        ready = {queue[w][at[w]] for w in range(n) if at[w] < len(queue[w])}
        best = None
        for i in ready:
            a, b = comparators[i]
            if queue[a][at[a]] != i or queue[b][at[b]] != i:
                continue
            loads = (written[a] < 0) + (written[b] < 0)
            key = (loads + results[i] - 2, loads, -written[a] - written[b], noise[i] if seed else i)
            if best is None or key < best[0]:
                best = (key, i)
        assert best is not None
        i = best[1]
        order.append(i)
        for wire in comparators[i]:
            at[wire] += 1
            written[wire] = step
    return order


def spills(
    comparators: Sequence[Comparator], outputs: Sequence[int], order: Sequence[int], registers: int
) -> int:
    """Stores and loads of values without a register, where the one needed last gives way (Belady 1966)."""
    flags = kept(comparators, outputs)
    uses: dict[int, list[int]] = {}
    for step, i in enumerate(order):
        for wire in comparators[i]:
            uses.setdefault(wire, []).append(step)
    for wire in outputs:
        uses.setdefault(wire, []).append(len(order))
    position = dict.fromkeys(uses, 0)
    inside: set[int] = set()
    stored: set[int] = set()  # wires whose present value memory holds
    seen: set[int] = set()
    count = 0

    def next_use(wire: int) -> int:
        at = position[wire]
        return uses[wire][at] if at < len(uses[wire]) else 1 << 30

    for i in order:
        pair = comparators[i]
        for wire in pair:
            if wire in seen and wire not in inside:
                count += 1  # load
            seen.add(wire)
            inside.add(wire)
        room = registers - 1  # the maximum needs a register before the minimum's operands are free
        while len(inside) > room:
            out = max(inside - set(pair), key=next_use)
            if out not in stored:
                count += 1  # store
                stored.add(out)
            inside.discard(out)
        for wire, alive in zip(pair, flags[i], strict=True):
            position[wire] += 1
            stored.discard(wire)
            if not alive:
                inside.discard(wire)
    return count


def ordered(
    comparators: Sequence[Comparator], outputs: Sequence[int], n: int, registers: int
) -> list[Comparator]:
    """The comparators in the order with the fewest spills of those tried."""
    orders = [list(range(len(comparators)))]
    orders += [greedy(comparators, outputs, n, seed) for seed in range(TRIES)]
    best = min(orders, key=lambda order: spills(comparators, outputs, order, registers))
    return [comparators[i] for i in best]
