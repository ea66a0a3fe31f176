"""Experiments of one's own: artefacts without a paper, whose table and figure keep every axis that varies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
from rich.markup import escape
from rich.table import Table

from horovod_byz.common.words import known
from horovod_byz.reproduction.artefact import Artefact
from horovod_byz.reproduction.catalogue import Catalogue
from horovod_byz.reproduction.grid import SEED
from horovod_byz.reproduction.series import Series
from horovod_byz.training.config import ConfigError

__all__ = ["check", "completed", "finals", "source"]


class _Shown(Protocol):
    @property
    def artefact(self) -> Artefact: ...
    @property
    def series(self) -> Sequence[Series]: ...
    @property
    def references(self) -> Mapping[str, Series]: ...


def check(artefact: Artefact, catalogue: Catalogue, papers: Mapping[str, str]) -> None:
    """Checks before anything is trained what would end a reproduction after it.

    Raises:
        ConfigError: if the paper is none of `papers`, nothing is shown, or table or figure name an axis that
            the runs do not have; it names the file and the remedy.
    """
    place = f"{catalogue.folder / artefact.name}.toml"
    try:
        if artefact.paper:
            known(artefact.paper, papers, "paper")
    except ValueError as error:
        raise ConfigError(f"{place}: {error}, or leave paper out for an experiment of your own") from error
    if artefact.calculate:
        return
    if not artefact.parts:
        raise ConfigError(f"{place}: it shows nothing: name a grid (runs = NAME), or slices of one")
    figure, axes = artefact.figure, _axes(artefact, catalogue)
    named = {"figure.x": [figure.x], "figure.y": [figure.y], "figure.best": [figure.best]}
    if figure.kind == "heatmap" and "worst" in figure.model_fields_set:
        named["figure.worst"] = [figure.worst]
    if not artefact.paper:  # the papers' own may name axes that some slices lack
        named |= {"figure.panels": [*figure.panels]}
        named |= {"table.rows": [*artefact.table.rows], "table.columns": [*artefact.table.columns]}
        if "rows" not in artefact.table.model_fields_set:
            del named["table.rows"]
    for entry, names in named.items():
        for name in filter(None, names):
            try:
                known(name, axes, "axis")
            except ValueError as error:
                raise ConfigError(f"{place}: {entry}: {error}") from error


def _axes(artefact: Artefact, catalogue: Catalogue) -> list[str]:
    """The axes of the runs that are shown, those of the slices' own labels among them."""
    names: dict[str, None] = {}
    for part in artefact.slices:
        grid = catalogue.grid(part.runs or artefact.runs, artefact.steps)
        names |= dict.fromkeys([*grid.axes, *part.labels])
    return [name for name in names if name != SEED]


def completed(artefact: Artefact, shown: Sequence[Series]) -> Artefact:
    """An artefact of one's own with every axis that varies in its table and its figure; a paper's as it is.

    An axis that the file does not place becomes a column of names in the table, and panels of the figure.
    """
    if artefact.paper or not shown:
        return artefact
    axes = dict.fromkeys(axis for series in shown for axis in series.labels)
    varying = [axis for axis in axes if len({series.labels.get(axis) for series in shown}) > 1]
    table, figure = artefact.table, artefact.figure
    rows = [axis for axis in table.rows if axis in axes]
    rows += _missing(varying, [*rows, *table.columns])
    rows = rows or list(axes)[:1]
    placed = [figure.x, figure.y, *figure.panels]
    placed += [figure.worst, figure.best] if figure.kind == "heatmap" else []
    lines = (
        figure.lines if figure.lines in axes else next(iter(_missing(varying, placed)), next(iter(axes), ""))
    )
    if figure.kind != "heatmap":
        placed.append(lines)
    panels = (*figure.panels, *_missing(varying, placed))
    return artefact.model_copy(
        update={
            "table": table.model_copy(update={"rows": tuple(rows)}),
            "figure": figure.model_copy(update={"lines": lines, "panels": panels}),
        }
    )


def _missing(varying: Iterable[str], placed: Iterable[str]) -> list[str]:
    taken = set(placed)
    return [axis for axis in varying if axis not in taken]


def source(artefact: Artefact, papers: Mapping[str, str]) -> str:
    """What an artefact shows, and of which paper."""
    if artefact.paper:
        return f"{artefact.shows} of {papers[artefact.paper]}."
    return artefact.shows or f"The runs of the grid {artefact.runs or artefact.name!r}."


def finals(shown: _Shown) -> Table:
    """The final values of each series, mean and standard error over the repeats, for the terminal."""
    artefact = shown.artefact
    axes = [*dict.fromkeys((*artefact.table.rows, *artefact.table.columns))]
    table = Table(title=f"{artefact.folder}: {artefact.title}", title_justify="left")
    for axis in axes:
        table.add_column(escape(axis))
    table.add_column(
        artefact.metric if artefact.metric == "loss" else f"{artefact.metric} (%)", justify="right"
    )
    table.add_column("repeats", justify="right")
    for name, series in shown.references.items():
        table.add_row(escape(name), *[""] * (len(axes) - 1), *_final(artefact, series))
    for series in shown.series:
        table.add_row(*(escape(series.labels.get(axis, "")) for axis in axes), *_final(artefact, series))
    return table


def _final(artefact: Artefact, series: Series) -> tuple[str, str]:
    values = series.final(artefact.metric)
    digits = 3 if artefact.metric == "loss" else 1
    error = f" ± {values.std(ddof=1) / np.sqrt(len(values)):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{error}", str(len(values))
