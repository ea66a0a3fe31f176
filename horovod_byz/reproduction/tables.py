"""Markdown from series and verdicts: the table of an artefact, its claims, and the overview of all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from horovod_byz.reproduction.artefact import Artefact, Published
from horovod_byz.reproduction.claims import Verdict
from horovod_byz.reproduction.grid import matches
from horovod_byz.reproduction.series import Series, statistic

__all__ = ["METRICS", "accuracies", "brief", "by_votes", "calculated", "claims", "named", "published", "row"]

METRICS = {
    "accuracy": "test accuracy (%)",
    "top3": "top-3 test accuracy (%)",
    "loss": "test loss",
    "train_loss": "training cross-entropy",
}


def row(*cells: str) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def head(*titles: str) -> list[str]:
    """The first two lines of a Markdown table."""
    return [row(*titles), row(*(["---"] * len(titles)))]


def accuracies(artefact: Artefact, shown: Sequence[Series], references: Mapping[str, Series]) -> list[str]:
    """Final values: the mean over the repeats with its standard error, and the votes that were lost."""
    layout = artefact.table
    if not layout.columns:
        return _list(artefact, shown, references)
    columns = _labels(shown, layout.columns)
    lines = head(*layout.rows, *(", ".join(map(named, layout.columns, column)) for column in columns))
    for labels in _labels(shown, layout.rows):
        cells = []
        for column in columns:
            wanted = dict(zip((*layout.rows, *layout.columns), (*labels, *column), strict=True))
            cells.append(
                "<br>".join(_cell(artefact, series) for series in shown if matches(series.labels, wanted))
            )
        lines.append(row(*labels, *cells))
    compared = "; ".join(f"{name} {brief(artefact, series)}" for name, series in references.items())
    return [*lines, "", f"To compare with: {compared}."] if compared else lines


def _list(artefact: Artefact, shown: Sequence[Series], references: Mapping[str, Series]) -> list[str]:
    axes = artefact.table.rows
    printed, voted = bool(artefact.published), any(series.votes for series in shown)
    levels = artefact.table.levels
    reached = [f"steps to {level:g} %" for level in levels]
    votes = ["votes lost"] if voted else []
    paper = [f"paper{artefact.printed_on}"] if printed else []
    lines = head(*axes, METRICS[artefact.metric], *votes, "crashed", *reached, *paper)

    def cells(series: Series) -> list[str]:
        return [
            brief(artefact, series),
            *([series.votes] if voted else []),
            _crashes(series),
            *(_reached(artefact, series, level) for level in levels),
            *([_paper(artefact, series)] if printed else []),
        ]

    for name, series in references.items():
        lines.append(row(name, *[""] * (len(axes) - 1), *cells(series)))
    for series in shown:
        lines.append(row(*(series.labels.get(axis, "") for axis in axes), *cells(series)))
    return lines


def by_votes(artefact: Artefact, shown: Sequence[Series]) -> list[str]:
    """Where the repeats of a series lost different numbers of votes, what each number comes to."""
    lines = []
    for series in shown:
        lost = sorted({run.lost_votes for run in series.runs if run.lost_votes is not None})
        if len(lost) < 2 or series.runs[0].config.schedule != "fixed":
            continue
        parts = []
        for votes in lost:
            some = Series(series.labels, tuple(run for run in series.runs if run.lost_votes == votes))
            seeds = f"{len(some.runs)} seed{'s' if len(some.runs) > 1 else ''}"
            parts.append(f"{votes:g} lost: {brief(artefact, some)} ({seeds})")
        labels = ", ".join(filter(None, (series.labels.get(axis, "") for axis in artefact.table.rows)))
        lines.append(f"* {labels}: {'; '.join(parts)}.")
    return ["", "By the number of votes lost:", "", *lines] if lines else []


def named(axis: str, label: str) -> str:
    """A label that can stand alone: a bare number gets the name of its axis."""
    return f"{axis} = {label}" if re.fullmatch(r"-?[\d.]+", label) else label


def _labels(shown: Sequence[Series], axes: Sequence[str]) -> list[tuple[str, ...]]:
    return list(dict.fromkeys(tuple(series.labels.get(axis, "") for axis in axes) for series in shown))


def _cell(artefact: Artefact, series: Series) -> str:
    paper = _paper(artefact, series)
    votes = f"<br>votes lost: {series.votes}" if series.votes else ""
    return brief(artefact, series) + votes + (f"<br>paper{artefact.printed_on}: {paper}" if paper else "")


def brief(artefact: Artefact, series: Series) -> str:
    """The mean of the final values with its standard error."""
    values = series.final(artefact.metric)
    digits = 3 if artefact.metric == "loss" else 1
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    error = values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.{digits}f} ± {error:.{digits}f}"


def _reached(artefact: Artefact, series: Series, level: float) -> str:
    steps = statistic("reaches", series, artefact.metric, {"level": level})
    reached = steps[np.isfinite(steps)]
    if not len(reached):
        return "never"
    some = "" if len(reached) == len(steps) else f" ({len(reached)} of {len(steps)})"
    return f"{reached.mean():.0f}{some}"


def _crashes(series: Series) -> str:
    crashed = sum(run.crashed for run in series.runs)
    return f"{crashed} of {len(series.runs)}"


def _paper(artefact: Artefact, series: Series) -> str:
    numbers = [number for number in artefact.published if matches(series.labels, number.where)]
    return ", ".join(published(number) for number in numbers)


def published(number: Published) -> str:
    """A number of the paper, with its note."""
    return f"{number.value:g}" + (f" {number.note}" if number.note else "")


def calculated(values: Mapping[str, Any]) -> list[str]:
    """Calculated quantities, one per line; the standard error of a noisy one stands beside it."""
    lines = head("quantity", "value")
    for name, value in values.items():
        if name.endswith((", standard error", ", trials")):
            continue
        error = values.get(f"{name}, standard error")
        noise = "" if error is None else f" ± {error:.2g} ({values[f'{name}, trials']} trials)"
        lines.append(row(name, (f"{value:.6g}" if isinstance(value, float) else str(value)) + noise))
    return lines


def claims(verdicts: Sequence[Verdict]) -> list[str]:
    """Each claim with what was expected, what was measured, and the verdict."""
    if not verdicts:
        return ["No claim is tested here."]
    lines = head("claim", "expected", "measured", "seeds", "verdict", "note")
    for verdict in verdicts:
        status = f"**{verdict.status}**"
        lines.append(
            row(verdict.claim, verdict.expected, verdict.measured, verdict.seeds, status, verdict.note)
        )
    return lines
