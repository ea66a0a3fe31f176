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
from horovod_byz.reproduction.claims import Verdict
from horovod_byz.reproduction.compute import Workplace
from horovod_byz.reproduction.own import check, finals
from horovod_byz.reproduction.reproduce import PAPERS, Shown, count, look, reproduce
from horovod_byz.reproduction.tables import brief, head, row
from horovod_byz.training.runs import RunError, replace_file

__all__ = ["chosen", "reproduce_all", "show", "write"]

SETS = ("quick", "cpu", "gpu", "evidence", "all")
_FIRST = 2  # claims of a large artefact that its line shows
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
    colours = {"PASS": "green", "FAIL": "red"}
    for verdict in shown.verdicts:
        words = map(escape, (verdict.claim, verdict.expected, verdict.measured))
        table.add_row(*words, f"[{colours.get(verdict.status, 'yellow')}]{verdict.status}[/]")
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
    """For every artefact the paper's statement beside ours, and the verdicts; then what does not pass."""
    shown = {artefact.name: _computed(artefact, catalogue, results) for artefact in catalogue.artefacts}
    done = [each for each in shown.values() if each is not None]
    verdicts = [verdict for each in done for verdict in each.verdicts]
    lines = ["# Results", "", _INTRODUCTION, "", f"All claims: {count(verdicts)}."]
    open_, missing = [], []
    for paper, title in PAPERS.items():
        rows = []
        for artefact in catalogue.artefacts:
            each = shown[artefact.name]
            if artefact.paper != paper:
                continue
            if each is None or each.artefact != artefact:
                missing.append(f"* {artefact.shows} ({title}): `{_make(artefact)}`")
            if each is None:
                continue
            rows.append(_line(each))
            open_ += [_open(each, verdict) for verdict in each.verdicts if verdict.status != "PASS"]
        if rows:
            lines += ["", f"## {title}", "", *head("artefact", "the paper's claim", "ours", "verdict"), *rows]
    lines += [
        "",
        "## What does not pass",
        "",
        *head("artefact", "claim", "measured", "verdict", "why"),
        *open_,
    ]
    lines += ["", "## In full, not computed here", "", *missing]
    return "\n".join(lines) + "\n" + _own(catalogue, results)


_INTRODUCTION = (
    "A line per table and figure of the papers: what the paper claims, what we measured (test accuracy in "
    "percent, mean ± standard error over seeds), and the verdicts on its claims. PASS and FAIL: the 95 % "
    "interval of the difference, paired by seed, lies within the claim's bound, or beyond it. NOT DECIDED: "
    "it contains the bound, or fewer than 5 seeds were run. OUTSIDE THE ASSUMPTION: the paper's own "
    "condition does not hold. `-small` is a reduced form (model, data or steps; never n, f or the attack), "
    "`-steps100` and `-repeats2` are shortened so. The rule in full: docs/reproduction.md. What differs "
    "from the paper: each artefact's page."
)


def _make(artefact: Artefact) -> str:
    return f"make {artefact.name}{' DEVICE=cuda' if 'gpu' in artefact.sets else ''}"


def _line(shown: Shown) -> str:
    folder = shown.artefact.folder
    says = _brief(shown.artefact.says)
    where = f"{shown.artefact.shows}: [{folder}]({folder}/README.md)"
    return row(where, says, _ours(shown), count(shown.verdicts))


def _brief(says: str) -> str:
    """The first sentences of a statement, without what stands in brackets behind them."""
    return says.partition(" (Section")[0].partition(" (The ")[0]


def _open(shown: Shown, verdict: Verdict) -> str:
    folder = shown.artefact.folder
    why = re.split(r"(?<=[.]) |; it would", verdict.note)[0]
    return row(f"[{folder}]({folder}/README.md)", verdict.claim, verdict.measured, verdict.status, why)


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


def _ours(shown: Shown) -> str:
    """Final values by label; of a large table or of calculated quantities, what the first claims measured."""
    axes = shown.artefact.table.rows + shown.artefact.table.columns
    cells = [*shown.references.items()]
    cells += [("/".join(series.labels.get(axis, "") for axis in axes), series) for series in shown.series]
    if shown.series and len(cells) <= 10:
        return ", ".join(f"{name} {brief(shown.artefact, series)}" for name, series in cells)
    size = f"{len(cells)} cells" if shown.series else f"{sum(map(_is_quantity, shown.values))} quantities"
    measured = [f"{verdict.claim}: {verdict.measured}" for verdict in shown.verdicts[:_FIRST]]
    return "<br>".join([size, *measured])


def _is_quantity(name: str) -> bool:
    return not name.endswith((", standard error", ", trials"))
