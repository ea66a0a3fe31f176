"""Writes the networks of the table as C++: straight-line code, ordered for 32 and for 16 registers.

kernels/generated/networks_32.h and networks_16.h; setup.py runs this before every build. core/net.h explains
the macros.
"""

from __future__ import annotations

from pathlib import Path

from order import ordered
from table import PATH, Network, kept, load


def code(network: Network, registers: int) -> str:
    """A function that leaves the wanted ranks of n rows in `to`."""
    comparators = ordered(network.comparators, network.outputs, network.n, registers)
    lines, seen = [], set()
    for (a, b), (low, high) in zip(comparators, kept(comparators, network.outputs), strict=True):
        lines += [f"HB_ROW({wire})" for wire in (a, b) if wire not in seen]
        seen |= {a, b}
        lines.append(f"{'HB_BOTH' if low and high else 'HB_MIN' if low else 'HB_MAX'}({a}, {b})")
    lines += [f"HB_OUT({i}, {wire})" for i, wire in enumerate(network.outputs)]
    text, line = [], ""
    for word in lines:
        if len(line) + len(word) > 118:
            text.append(line)
            line = ""
        line += (" " if line else "  ") + word
    return f"HB_NETWORK({network.rule}, {network.n})\n" + "\n".join([*text, line]) + "\nHB_END\n"


def headers(networks: list[Network], registers: int) -> str:
    """All networks; HB_LARGE_MEDIANS(X) is X(n) for each n beyond the first gap."""
    rows = {network.n for network in networks if network.rule == "median"}
    gap = next(n for n in range(2, max(rows) + 2) if n not in rows)
    large = " ".join(f"X({n})" for n in sorted(rows) if n > gap)
    head = "// Made by tools/networks/header.py from kernels/core/networks.txt.\n"
    return f"{head}#define HB_LARGE_MEDIANS(X) {large}\n" + "".join(
        code(each, registers) for each in networks
    )


def write_networks(folder: Path) -> None:
    """Write both headers into folder / generated, unless they are newer than the table and these programs."""
    here = Path(__file__).resolve().parent
    newest = max(path.stat().st_mtime for path in (PATH, *here.glob("*.py")))
    networks = None
    for registers in (32, 16):
        path = folder / "generated" / f"networks_{registers}.h"
        if path.exists() and path.stat().st_mtime > newest:
            continue
        networks = networks or sorted(load().values(), key=lambda network: (network.rule, network.n))
        path.parent.mkdir(exist_ok=True)
        path.write_text(headers(networks, registers))
