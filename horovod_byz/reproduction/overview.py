"""All artefacts together: several in a row, a list of how far each is, and results/README.md."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rich.markup import escape
from rich.table import Column, Table

from horovod_byz.common.terminal import console
from horovod_byz.common.words import known
from horovod_byz.reproduction.artefact import Artefact
from horovod_byz.reproduction.catalogue import Catalogue
from horovod_byz.reproduction.compute import Workplace
from horovod_byz.reproduction.own import check, finals
from horovod_byz.reproduction.reproduce import PAPERS, Shown, count, look, reproduce
from horovod_byz.reproduction.tables import head, published, row
from horovod_byz.training.runs import RunError, replace_file

__all__ = ["chosen", "reproduce_all", "show", "write"]

SETS = ("quick", "cpu", "gpu", "all")
_FORM = re.compile(r"(?:-repeats(?P<repeats>\d+))?(?:-steps(?P<steps>\d+))?")


def chosen(wanted: Sequence[str], catalogue: Catalogue) -> list[str]:
    """The artefacts that names and sets mean, each once.

    Raises:
        ValueError: if a name is unknown; the message names the nearest.
    """
    names: list[str] = []
    for name in wanted:
        if name not in SETS:
            known(name, catalogue.names, "experiment")
        names += [name] if name not in SETS else _of_set(name, catalogue)
    return list(dict.fromkeys(names))


def _of_set(name: str, catalogue: Catalogue) -> list[str]:
    """The members of a set; "all" is every artefact in full, without the small forms."""
    return [
        artefact.name
        for artefact in catalogue.artefacts
        if name in artefact.sets or (name == "all" and not artefact.reduced)
    ]


def reproduce_all(
    wanted: Sequence[str],
    catalogue: Catalogue,
    place: Workplace,
    *,
    repeats: int | None = None,
    steps: int | None = None,
) -> None:
    """Reproduces artefacts one after another, prints the claims of each, and rewrites the overview."""
    screen = console()
    artefacts = [_shortened(name, catalogue, repeats, steps) for name in chosen(wanted, catalogue)]
    for artefact in (*artefacts, *catalogue.artefacts):  # before anything is trained
        check(artefact, catalogue, PAPERS)
    for artefact in artefacts:
        shown = reproduce(artefact, catalogue, place)
        if shown.series:
            screen.print(finals(shown))
        if shown.verdicts:
            screen.print(_verdicts(shown))
        screen.print(f"{place.results / artefact.folder / 'README.md'}\n", highlight=False, soft_wrap=True)
    write(catalogue, place.results)


def _shortened(name: str, catalogue: Catalogue, repeats: int | None, steps: int | None) -> Artefact:
    """The artefact with fewer repeats or steps; itself where that changes nothing."""
    whole = catalogue.artefact(name)
    short = catalogue.artefact(name, repeats=repeats, steps=steps)
    return whole if catalogue.cells(short) == catalogue.cells(whole) else short


def _verdicts(shown: Shown) -> Table:
    artefact = shown.artefact
    title = f"{artefact.folder}: {artefact.title}" + (
        f" (REDUCED: {artefact.reduction})" if artefact.reduction else ""
    )
    table = Table("claim", "expected", "measured", "verdict", title=title, title_justify="left")
    colours = {"PASS": "green", "FAIL": "red", "OUTSIDE THE ASSUMPTION": "yellow"}
    for verdict in shown.verdicts:
        words = map(escape, (verdict.claim, verdict.expected, verdict.measured))
        table.add_row(*words, f"[{colours[verdict.status]}]{verdict.status}[/]")
    return table


def show(catalogue: Catalogue, results: Path) -> None:
    """Prints every artefact with its progress."""
    table = Table(Column("name", no_wrap=True), "what", "runs there", "minutes on 2 cores")
    for artefact in catalogue.artefacts:
        cells = catalogue.cells(artefact)
        complete = sum(cell.complete(results) for cell in cells)
        runs = f"{complete} of {len(cells)}" if cells else "calculated"
        minutes = "GPU" if "gpu" in artefact.sets else f"{artefact.minutes:g}"
        table.add_row(artefact.name, artefact.title, runs, minutes)
    console().print(table)


def write(catalogue: Catalogue, results: Path) -> None:
    """Writes results/README.md."""
    replace_file(results / "README.md", text(catalogue, results).encode())


def _own(catalogue: Catalogue, results: Path) -> str:
    """The experiments of one's own that are computed; empty if there are none."""
    lines = []
    for artefact in catalogue.artefacts:
        shown = None if artefact.paper else _computed(artefact, catalogue, results)
        if shown is not None:
            page = f"[{shown.artefact.folder}]({shown.artefact.folder}/README.md)"
            lines.append(row(page, artefact.title, _ours(shown), count(shown.verdicts)))
    head_ = head("experiment", "what", "final values", "claims")
    return "\n".join(["", "## Experiments of one's own", "", *head_, *lines, ""]) if lines else ""


def text(catalogue: Catalogue, results: Path) -> str:
    """For every artefact the paper's number beside ours, and the verdicts."""
    lines = [
        "# Results",
        "",
        "Every table and figure of the papers, as `make <name>` made it from the runs beside this file. "
        "A name that ends in `-small` is a reduced form: n, f and the attack are the paper's, the model, the "
        "data or the number of steps are smaller; what ends in `-repeats2` or `-steps100` "
        "is shortened so. How to run and read them: docs/reproduction.md.",
    ]
    for paper, title in PAPERS.items():
        mine = [artefact for artefact in catalogue.artefacts if artefact.paper == paper]
        if mine:
            lines += ["", f"## {title}", "", *head("artefact", "paper", "ours", "claims", "what differs")]
            lines += [_line(artefact, catalogue, results) for artefact in mine]
    return "\n".join(lines) + "\n" + _own(catalogue, results)


def _line(artefact: Artefact, catalogue: Catalogue, results: Path) -> str:
    name, paper = artefact.name, _published(artefact)
    differs = " ".join(artefact.differences)
    make = f"`make {name}{' DEVICE=cuda' if 'gpu' in artefact.sets else ''}`"
    shown = _computed(artefact, catalogue, results)
    if shown is None:
        return row(f"{artefact.shows}: `{name}`", paper, f"not computed: {make}", "", differs)
    failed = [verdict for verdict in shown.verdicts if verdict.status != "PASS"]
    why = [f"{verdict.status}: {verdict.claim} (measured {verdict.measured})" for verdict in failed]
    if shown.artefact.reduction:
        full = "" if shown.artefact == artefact else f" In full: {make}."
        differs = f"Reduced: {shown.artefact.reduction}.{full} {differs}"
    folder = shown.artefact.folder
    return row(
        f"{artefact.shows}: [{folder}]({folder}/README.md)",
        paper,
        _ours(shown),
        count(shown.verdicts) + "".join(f"<br>{reason}" for reason in why),
        differs,
    )


def _length(artefact: Artefact) -> tuple[float, float]:
    return artefact.steps or math.inf, artefact.repeats or math.inf


def _computed(artefact: Artefact, catalogue: Catalogue, results: Path) -> Shown | None:
    """An artefact whose runs are all there: itself, else the longest of its shortened forms."""
    forms = [artefact]
    for path in results.glob(f"{artefact.name}-*"):
        form = _FORM.fullmatch(path.name.removeprefix(artefact.name))
        if form:
            numbers = {word: int(number) for word, number in form.groupdict().items() if number}
            forms.append(catalogue.artefact(artefact.name, **numbers))
    forms[1:] = sorted(forms[1:], key=_length, reverse=True)
    for shortened in forms:
        if (results / shortened.folder / "README.md").is_file():
            with suppress(RunError):
                return look(shortened, catalogue, results)
    return None


def _published(artefact: Artefact) -> str:
    if not artefact.published:
        return artefact.says
    numbers = [
        f"{'/'.join(map(str, number.where.values()))} {published(number)}" for number in artefact.published
    ]
    return ", ".join(numbers)


def _ours(shown: Shown) -> str:
    """Final values by label; a large table is left to the artefact's own page."""
    if shown.values:
        return f"{len(shown.values)} quantities"
    axes = shown.artefact.table.rows + shown.artefact.table.columns
    cells = [*shown.references.items()]
    cells += [("/".join(series.labels.get(axis, "") for axis in axes), series) for series in shown.series]
    if len(cells) > 24:
        return f"{len(cells)} cells: see its page"
    return ", ".join(f"{name} {series.final(shown.artefact.metric).mean():.1f}" for name, series in cells)
