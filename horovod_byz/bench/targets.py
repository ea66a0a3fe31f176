"""The goals of the kernels: one thread, AVX-512, rows from `empty_rows`, ratios within one run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["TARGETS", "Target", "verdicts"]


@dataclass(frozen=True)
class Target:
    """A goal: `way` over n rows takes at most `goal` times the yardstick ("floor" or "mean")."""

    way: str
    n: int
    goal: float
    over: str


TARGETS = (
    Target("median", 5, 1.1, "floor"),
    Target("median", 15, 1.1, "floor"),
    Target("median", 25, 1.1, "floor"),
    Target("median", 45, 1.05, "floor"),
    Target("median", 45, 0.40, "mean"),
    Target("median", 64, 1.2, "floor"),
    Target("median", 100, 1.5, "floor"),
    Target("median", 256, 1.8, "floor"),
    Target("trimmed mean", 45, 1.3, "floor"),
    Target("mean around median", 45, 1.4, "floor"),
    Target("BrSGD statistics", 15, 1.3, "floor"),
    Target("BrSGD statistics", 45, 1.6, "floor"),
    Target("Multi-Krum", 15, 1.4, "mean"),
    Target("Multi-Krum", 45, 1.2, "mean"),
    Target("geometric median", 45, 1.5, "mean"),
    Target("vote", 45, 0.70, "floor"),
    Target("DETOX, median", 45, 0.70, "floor"),
    Target("DETOX, median", 45, 0.30, "mean"),
    Target("median, bfloat16", 45, 0.6, "floor"),
    Target("median, avx2", 15, 1.1, "floor"),
    Target("median, avx2", 45, 1.3, "floor"),
)


def verdicts(cells: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each target beside what was reached at each d; the verdict judges the worst ratio for d >= 10^6.

    Args:
        cells: as the JSON file holds them.
    """
    results = []
    for target in TARGETS:
        reached = {
            cell["d"]: timing[f"over_{target.over}"]["mid"]
            for cell in sorted(cells, key=lambda cell: int(cell["d"]))
            for timing in cell["timings"]
            if cell["n"] == target.n and timing["name"] == target.way
        }
        if reached:
            large = [value for d, value in reached.items() if d >= 1e6] or list(reached.values())
            results.append(
                {**vars(target), "reached": reached, "verdict": _verdict(max(large) / target.goal)}
            )
    return results


def _verdict(ratio: float) -> str:
    if ratio <= 1:
        return "reached"
    return "within a quarter" if ratio <= 1.25 else "missed"
