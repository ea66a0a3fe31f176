"""The timings, goals and exponents as tables on the terminal: pure functions of the JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["conclude", "show"]


def show(cell: Mapping[str, Any], dtype: str, threads: int) -> None:
    """One size: every way with its time, ratios with quartiles, and extra memory."""
    title = f"n = {cell['n']}, d = {cell['d']:,}, {dtype}, threads = {threads}"
    table = _table(title, "", "cpu ms", "wall ms", "x floor", "quartiles", "x mean", "extra MB")
    for timing in cell["timings"]:
        floor = timing["over_floor"]
        extra = timing.get("extra_bytes")
        table.add_row(
            timing["name"],
            f"{timing['cpu_ms']:.2f}",
            f"{timing['wall_ms']:.2f}",
            f"{floor['mid']:.2f}",
            f"{floor['low']:.2f} {floor['high']:.2f}",
            f"{timing['over_mean']['mid']:.2f}",
            "" if extra is None else f"{extra / 1e6:.1f}",
        )
    Console(width=110).print(table)


def conclude(result: Mapping[str, Any]) -> None:
    """Goals beside measured ratios, exponents beside the papers', and the sizes that were left out."""
    goals = _table("Goals (verdict: the worst of d >= 10^6)", "", "n", "goal", "reached at d", "verdict")
    for target in result["targets"]:
        reached = ", ".join(f"{int(d):,}: {value:.2f}" for d, value in target["reached"].items())
        goal = f"{target['goal']:.2f} x {target['over']}"
        goals.add_row(target["way"], str(target["n"]), goal, reached, target["verdict"])
    table = _table("time = c d^k, c n^k", "", "k of d", "paper", "k of n", "paper")
    for fit in result["exponents"]:
        table.add_row(
            fit["way"],
            _exponent(fit["in_d"]),
            fit["claimed_in_d"],
            _exponent(fit["in_n"]),
            fit["claimed_in_n"],
        )
    console = Console(width=110)
    if result["targets"]:
        console.print(goals)
    console.print(table)
    for size in result["skipped"]:
        console.print(f"left out: n = {size['n']}, d = {size['d']:,}: {size['why']}")


def _exponent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _table(title: str, *columns: str) -> Table:
    table = Table(*columns, title=title, box=None, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    return table
