"""The body of `horovod-byz attack`: searches the attack that moves a rule farthest, and shows all."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from rich import box
from rich.table import Table

from horovod_byz.adversary import Honest, Report, search
from horovod_byz.common.errors import ExplainedError
from horovod_byz.common.terminal import console
from horovod_byz.common.words import parse_word
from horovod_byz.redundancy.groups import Redundancy
from horovod_byz.rules import Rule, pipelines

__all__ = ["attack", "honest_rows", "rule_of"]


def honest_rows(n: int | None, f: int, d: int, seed: int, signal: float, path: Path | None) -> Honest:
    """The honest rows: those of a file, or n - f drawn ones.

    Raises:
        ValueError: if neither n nor a file is given, n leaves no honest row or disagrees with the file, or
            the file holds no such rows.
        OSError: if it cannot be read.
    """
    if path is not None:
        try:
            rows = Honest(np.load(path, allow_pickle=False), str(path))
        except (ValueError, EOFError) as error:
            raise ValueError(f"--rows {path}: {error}: write it with numpy.save(path, rows)") from error
        if n is not None and n != len(rows.rows) + f:
            raise ValueError(
                f"--rows {path} holds {len(rows.rows)} honest rows, which with f = {f} make n = "
                f"{len(rows.rows) + f}, not {n}: leave out --n"
            )
        return rows
    if n is None:
        raise ValueError("give --n, the number of workers, or --rows FILE.npy with honest rows of your own")
    if n <= f:
        raise ValueError(f"n = {n} workers of which f = {f} are Byzantine leave none honest: use f < {n}")
    return Honest.drawn(n - f, d, seed, signal)


def rule_of(word: str, n: int, f: int) -> Rule:
    """The rule by its name; an f that is left out is the number of Byzantine workers.

    Raises:
        ValueError: if the rule or an option is unknown.
    """
    name, options = parse_word(word)
    return pipelines.make(name, pipelines.with_f(name, options, f), Redundancy(1), n)


def attack(rule: str, f: int, honest: Honest, seed: int, threads: int, as_json: bool) -> None:
    """Searches and prints.

    Raises:
        ExplainedError: if an attack goes beyond the theorem's bound.
    """
    made = rule_of(rule, len(honest.rows) + f, f)
    report = search(made, f, honest, seed=seed, threads=threads)
    if as_json:
        print(json.dumps(report.to_data(), indent=2, allow_nan=False))
    else:
        _show(report)
    if report.exceeded:
        raise ExplainedError(
            f"{report.worst.attack!r} moves {report.rule!r} by {report.worst.displacement:.6g}, beyond the "
            f"bound {report.bound:.6g} of horovod_byz.theory.robustness: the rule or the theorem is wrong; "
            "please report it with this command"
        )


def _show(report: Report) -> None:
    screen = console()
    screen.print(
        f"{report.rule!r}, n = {report.n}, f = {report.f}, d = {report.d}; honest rows: {report.source}",
        highlight=False,
    )
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("attack", overflow="fold")
    for heading in ("searched", "displacement", "of the bound", "Byzantine weight"):
        table.add_column(heading, justify="right")
    for tried in report.tried:
        strength = "-" if tried.strength is None else f"{tried.option} = {tried.strength:.4g}"
        weight = "not measured" if math.isnan(tried.weight) else f"{100 * tried.weight:.1f} %"
        part = f"{100 * tried.displacement / report.bound:.1f} %" if report.bound else "-"
        searched = tried.option if tried.option == "worker" else strength
        table.add_row(repr(tried.attack), searched, f"{tried.displacement:.4g}", part, weight)
    screen.print(table)
    bound = "no bound is known" if report.bound is None else f"no attack can exceed {report.bound:.4g}"
    screen.print(
        f"Worst: {report.worst.attack!r} moves the result by {report.worst.displacement:.4g} honest "
        f"deviations from the honest mean; without an attack it is {report.unattacked:.4g}; {bound} for this "
        f"rule, and no rule can promise less than {report.floor:.4g}.",
        highlight=False,
    )
