"""The committed table of selection networks, one line for each: rule, n, comparators.

A line is ``median 45 OPERATIONS LOCKED OUTPUTS COMPARATORS``: how many minima and maxima; how many
comparators at the start the search never changes (it enumerates what they leave); the wires that end up with
the wanted ranks, lowest first; and pairs of wires, of which the first keeps the smaller value. A wire has two
hexadecimal digits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

PATH = Path(__file__).resolve().parents[2] / "kernels" / "core" / "networks.txt"
Comparator = tuple[int, int]


@dataclass(frozen=True)
class Network:
    """Comparators that put wanted ranks of n values on the wires `outputs`."""

    rule: str
    n: int
    locked: int
    outputs: tuple[int, ...]
    comparators: tuple[Comparator, ...]

    @property
    def operations(self) -> int:
        """Minima and maxima: a comparator of which one result is read counts once."""
        return sum((low + high) for low, high in kept(self.comparators, self.outputs))


def kept(comparators: Sequence[Comparator], outputs: Iterable[int]) -> list[tuple[bool, bool]]:
    """For each comparator whether its minimum and its maximum are read later."""
    wanted, result = set(outputs), []
    for a, b in reversed(comparators):
        result.append((a in wanted, b in wanted))
        if a in wanted or b in wanted:
            wanted |= {a, b}
    return result[::-1]


def middle_ranks(n: int) -> list[int]:
    """The ranks that the median is made of: one of them, or two for even n."""
    return sorted({(n - 1) // 2, n // 2})


def _wires(text: str) -> list[int]:
    return list(bytes.fromhex(text))


def parsed(line: str) -> Network:
    """The network of a line."""
    rule, n, _, locked, outputs, comparators = line.split()
    wires = _wires(comparators)
    pairs = tuple(zip(wires[::2], wires[1::2], strict=True))
    return Network(rule, int(n), int(locked), tuple(_wires(outputs)), pairs)


def written(network: Network) -> str:
    """The line of a network."""
    outputs, wires = bytes(network.outputs), bytes(w for pair in network.comparators for w in pair)
    start = f"{network.rule} {network.n} {network.operations} {network.locked}"
    return f"{start} {outputs.hex()} {wires.hex()}\n"


def load(path: Path = PATH) -> dict[tuple[str, int], Network]:
    """All networks by rule and n."""
    lines = path.read_text().splitlines() if path.exists() else []
    networks = [parsed(line) for line in lines if line and not line.startswith("#")]
    return {(network.rule, network.n): network for network in networks}


def save(networks: Iterable[Network], path: Path = PATH) -> None:
    """Write the table, whole or not at all."""
    lines = [written(network) for network in sorted(networks, key=lambda x: (x.rule, x.n))]
    head = "# Made by tools/networks/search.py; tools/networks/table.py explains a line.\n"
    partial = path.with_suffix(".partial")
    partial.write_text(head + "".join(lines))
    partial.replace(path)
