"""Searches for small median networks and keeps the best in the table.

    python tools/networks/search.py --seconds 3 --rounds 20 --fresh 25 31 45
    python tools/networks/search.py --seconds 3 44 43 42

For each n it starts from the smallest of: the network in the table, a pairwise network whose outer wires are
left out, and the networks of n + 1 and n + 2 with a wire or two left out; search.cpp then changes it. Many
short searches from a pairwise network (--fresh), each with other comparators locked, found more than one long
search.
"""

from __future__ import annotations

import argparse
import itertools
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from construct import pairwise, without
from table import Comparator, Network, load, middle_ranks, save


def compiled(folder: str) -> Path:
    """The program that changes networks."""
    source, program = Path(__file__).with_name("search.cpp"), Path(folder) / "search"
    subprocess.run(["g++", "-O3", "-march=native", "-std=c++17", "-o", program, source], check=True)
    return program


def renumbered(network: Network, wires: Sequence[int], n: int) -> Network:
    """The same on the wires 0 .. n - 1, `wires` in this order."""
    to = {wire: i for i, wire in enumerate(wires)}
    pairs = tuple((to[a], to[b]) for a, b in network.comparators)
    return Network("median", n, network.locked, tuple(to[w] for w in network.outputs), pairs)


def pruned(network: Network) -> Network:
    """Without comparators that nothing reads."""
    wanted, pairs, locked = set(network.outputs), [], network.locked
    for i in reversed(range(len(network.comparators))):
        a, b = network.comparators[i]
        if a in wanted or b in wanted:
            wanted |= {a, b}
            pairs.append((a, b))
        elif i < network.locked:
            locked -= 1
    return Network(network.rule, network.n, locked, network.outputs, tuple(reversed(pairs)))


def left_out(
    network: Network, lowest: Iterable[int], highest: Iterable[int], ranks: dict[int, int]
) -> Network:
    """A network of fewer wires: `lowest` hold -infinity, `highest` +infinity; ranks: of each output."""
    low, high = set(lowest), set(highest)
    wires = max(max(pair) for pair in network.comparators) + 1
    n = wires - len(low) - len(high)
    locked = len(without(network.comparators[: network.locked], low, high)[0])
    rest, where = without(network.comparators, low, high)
    by_rank = {rank - len(low): where.get(wire, wire) for wire, rank in ranks.items()}
    outputs = tuple(by_rank[rank] for rank in middle_ranks(n))
    used = [w for w in range(wires) if w not in low | high]
    return pruned(renumbered(Network("median", n, locked, outputs, tuple(rest)), used, n))


def hypercube_first(comparators: Sequence[Comparator], side: int) -> tuple[list[Comparator], int]:
    """The same, comparisons at distances 1, 2, .. side / 2 in front where they may be; and how many."""
    first, rest, changed, last = [], [], set(), {}
    for a, b in comparators:
        distance = b - a
        inside = (
            0 < distance < side and distance & (distance - 1) == 0 and not a & distance and b == a ^ distance
        )
        fits = max(last.get(a, 0), last.get(b, 0)) < distance
        if inside and fits and not {a, b} & changed:
            first.append((a, b))
            last[a] = last[b] = distance
        else:
            rest.append((a, b))
            changed |= {a, b}
    return first + rest, len(first)


def of_pairwise(n: int, side: int) -> Network:
    """The smallest that leaving out outer wires of a pairwise network gives; its first comparators locked."""
    span = 1 << (n - 1).bit_length()
    comparators, locked = hypercube_first(pairwise(span), side)
    whole = Network("median", span, locked, (), tuple(comparators))
    ranks = {i: i for i in range(span)}
    made = [left_out(whole, range(k), range(k + n, span), ranks) for k in range(span - n + 1)]
    return min(made, key=lambda network: network.operations)


def of_larger(network: Network, n: int) -> Network | None:
    """The smallest that leaving out wires of a median network of n + 1 or n + 2 rows gives."""
    wires, ranks = range(network.n), dict(zip(network.outputs, middle_ranks(network.n), strict=True))
    if network.n == n + 2:
        choices: Iterable[tuple[list[int], list[int]]] = (
            ([a], [b]) for a, b in itertools.permutations(wires, 2)
        )
    elif network.n % 2 == 0:
        choices = [*(([a], []) for a in wires), *(([], [b]) for b in wires)]
    else:
        return None
    made = (left_out(network, low, high, ranks) for low, high in choices)
    return min(made, key=lambda other: other.operations)


def searched(program: Path, network: Network, seconds: float, seed: int, slack: int) -> Network:
    """What random changes make of it."""
    ranks = middle_ranks(network.n)
    lines = [f"{network.n} {network.locked} {len(network.comparators)} {len(ranks)} 0"]
    lines += [f"{a} {b}" for a, b in network.comparators]
    n = network.n
    lines += [f"{w} {n - 1 - r} {n - r}" for w, r in zip(network.outputs, ranks, strict=True)]
    command = [str(program), str(seconds), str(seed), str(slack)]
    output = subprocess.run(
        command, input="\n".join(lines), check=True, text=True, stdout=subprocess.PIPE
    ).stdout
    numbers = [int(word) for word in output.split()]
    size = numbers[1]
    values = numbers[3:]
    pairs = tuple(zip(values[: 2 * size : 2], values[1 : 2 * size : 2], strict=True))
    outputs = tuple(values[2 * size :: 3])
    return pruned(Network("median", n, network.locked, outputs, pairs))


def sides(n: int) -> tuple[int, ...]:
    """How far the locked comparators may reach: larger n have more states to try."""
    limits = {12: (1, 2), 20: (2, 4), 32: (4, 8), 48: (8, 16, 32)}
    return next((chosen for most, chosen in limits.items() if n <= most), (64,))


def main() -> int:
    """Search for each n in turn."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="+", type=int)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--slack", type=int, default=2, help="operations that a change may cost for a while")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", action="store_true", help="start from the pairwise network only")
    given = parser.parse_args()
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        program = compiled(folder)
        for seed in range(given.rounds):
            for n in given.rows:
                networks = load()
                starts = [networks.get(("median", n)), of_pairwise(n, rng.choice(sides(n)))]
                starts += [
                    of_larger(networks["median", k], n) for k in (n + 1, n + 2) if ("median", k) in networks
                ]
                if given.fresh:
                    starts = [starts[1]]
                start = min(filter(None, starts), key=lambda network: network.operations)
                result = searched(program, start, given.seconds, given.seed + seed + n, given.slack)
                print(n, start.operations, "->", result.operations, flush=True)
                networks = load()
                networks["median", n] = min(
                    result, networks.get(("median", n), result), key=lambda x: x.operations
                )
                save(networks.values())
    return 0


if __name__ == "__main__":
    sys.exit(main())
