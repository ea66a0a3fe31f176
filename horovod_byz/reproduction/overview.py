"""All artefacts together: several in a row, a list of how far each is, and results/README.md."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from rich.markup import escape
from rich.table import Column, Table

from horovod_byz.common.terminal import console
from horovod_byz.common.words import known
from horovod_byz.reproduction.artefact import Artefact, names
from horovod_byz.reproduction.compute import Workplace
from horovod_byz.reproduction.reproduce import PAPERS, Shown, count, look, reproduce
from horovod_byz.reproduction.tables import head, published, row
from horovod_byz.training.runs import RunError, replace_file

__all__ = ["chosen", "reproduce_all", "show", "write"]

SETS = ("quick", "cpu", "gpu", "all")
_FORM = re.compile(r"(?:-repeats(?P<repeats>\d+))?(?:-steps(?P<steps>\d+))?")


def chosen(wanted: Sequence[str], experiments: Path) -> list[str]:
    """The artefacts that names and sets mean, each once.

    Raises:
        ValueError: when a name is unknown; the message names the nearest.
    """
    every = names(experiments)
    found: list[str] = []
    for name in wanted:
        if name not in SETS:
            known(name, every, "experiment")
        found += [name] if name not in SETS else _of_set(name, every, experiments)
    return list(dict.fromkeys(found))


def _of_set(name: str, every: Iterable[str], experiments: Path) -> list[str]:
    """The members of a set; "all" is every artefact in full, without the small forms."""
    read = [Artefact.read(experiments / f"{one}.toml") for one in every]
    return [one.name for one in read if name in one.sets or (name == "all" and not one.reduced)]


def reproduce_all(
    wanted: Sequence[str],
    experiments: Path,
    place: Workplace,
    *,
    repeats: int | None = None,
    steps: int | None = None,
) -> None:
    """Reproduce artefacts one after another, print each one's claims, and renew the overview."""
    screen = console()
    for name in chosen(wanted, experiments):
        artefact = _shortened(experiments / f"{name}.toml", experiments, repeats, steps)
        shown = reproduce(artefact, experiments, place)
        screen.print(_verdicts(shown))
        screen.print(f"{place.results / artefact.folder / 'README.md'}\n", highlight=False, soft_wrap=True)
    write(experiments, place.results)


def _shortened(path: Path, experiments: Path, repeats: int | None, steps: int | None) -> Artefact:
    """The artefact with fewer repeats or steps; itself where that changes nothing."""
    whole = Artefact.read(path)
    short = Artefact.read(path, repeats=repeats, steps=steps)
    return whole if short.cells(experiments) == whole.cells(experiments) else short


def _verdicts(shown: Shown) -> Table:
    artefact = shown.artefact
    title = f"{artefact.folder}: {artefact.title}" + (
        f" (REDUCED: {artefact.reduction})" if artefact.reduction else ""
    )
    table = Table("claim", "expected", "measured", "verdict", title=title, title_justify="left")
    colours = {"PASS": "green", "FAIL": "red", "OUTSIDE THE ASSUMPTION": "yellow"}
    for one in shown.verdicts:
        table.add_row(
            *map(escape, (one.claim, one.expected, one.measured)), f"[{colours[one.status]}]{one.status}[/]"
        )
    return table


def show(experiments: Path, results: Path) -> None:
    """Print every artefact with what is there of it."""
    table = Table(Column("name", no_wrap=True), "what", "runs there", "minutes on 2 cores")
    for name in names(experiments):
        artefact = Artefact.read(experiments / f"{name}.toml")
        cells = artefact.cells(experiments)
        there = sum(cell.complete(results) for cell in cells)
        told = f"{there} of {len(cells)}" if cells else "calculated"
        minutes = "GPU" if "gpu" in artefact.sets else f"{artefact.minutes:g}"
        table.add_row(name, artefact.title, told, minutes)
    console().print(table)


def write(experiments: Path, results: Path) -> None:
    """Write results/README.md."""
    replace_file(results / "README.md", text(experiments, results).encode())


def text(experiments: Path, results: Path) -> str:
    """For every artefact the paper's number beside ours, and the verdicts."""
    lines = [
        "# Results",
        "",
        "Every table and figure of the papers, as `make <name>` made it from the runs beside this file. "
        "A name that ends in `-small` is a reduced form: n, f and the attack are the paper's, the model, the "
        "data or the number of steps are smaller; what ends in `-repeats2` or `-steps100` "
        "is shortened so. How to run and read them: docs/reproduction.md.",
    ]
    read = [Artefact.read(experiments / f"{name}.toml") for name in names(experiments)]
    for paper, title in PAPERS.items():
        mine = [one for one in read if one.paper == paper]
        if mine:
            lines += ["", f"## {title}", "", *head("artefact", "paper", "ours", "claims", "what differs")]
            lines += [_line(one, experiments, results) for one in mine]
    return "\n".join(lines) + "\n"


def _line(artefact: Artefact, experiments: Path, results: Path) -> str:
    name, paper = artefact.name, _published(artefact)
    differs = " ".join(artefact.differences)
    make = f"`make {name}{' DEVICE=cuda' if 'gpu' in artefact.sets else ''}`"
    shown = _computed(artefact, experiments, results)
    if shown is None:
        return row(f"{artefact.shows}: `{name}`", paper, f"not computed: {make}", "", differs)
    failed = [one for one in shown.verdicts if one.status != "PASS"]
    why = [f"{one.status}: {one.claim} (measured {one.measured})" for one in failed]
    if shown.artefact.reduction:
        full = "" if shown.artefact == artefact else f" In full: {make}."
        differs = f"Reduced: {shown.artefact.reduction}.{full} {differs}"
    folder = shown.artefact.folder
    return row(
        f"{artefact.shows}: [{folder}]({folder}/README.md)",
        paper,
        _ours(shown),
        count(shown.verdicts) + "".join(f"<br>{one}" for one in why),
        differs,
    )


def _length(artefact: Artefact) -> tuple[float, float]:
    return artefact.steps or math.inf, artefact.repeats or math.inf


def _computed(artefact: Artefact, experiments: Path, results: Path) -> Shown | None:
    """An artefact whose runs are all there: itself, else the longest of its shortened forms."""
    file = experiments / f"{artefact.name}.toml"
    forms = [artefact]
    for path in results.glob(f"{artefact.name}-*"):
        found = _FORM.fullmatch(path.name.removeprefix(artefact.name))
        if found:
            numbers = {word: int(number) for word, number in found.groupdict().items() if number}
            forms.append(Artefact.read(file, **numbers))
    forms[1:] = sorted(forms[1:], key=_length, reverse=True)
    for form in forms:
        if (results / form.folder / "README.md").is_file():
            with suppress(RunError):
                return look(form, experiments, results)
    return None


def _published(artefact: Artefact) -> str:
    if not artefact.published:
        return artefact.says
    told = [f"{'/'.join(map(str, one.where.values()))} {published(one)}" for one in artefact.published]
    return ", ".join(told)


def _ours(shown: Shown) -> str:
    """Final values by label; a large table is left to the artefact's own page."""
    if shown.values:
        return f"{len(shown.values)} quantities"
    axes = shown.artefact.table.rows + shown.artefact.table.columns
    found = [*shown.references.items()]
    found += [("/".join(one.labels.get(axis, "") for axis in axes), one) for one in shown.series]
    if len(found) > 24:
        return f"{len(found)} cells: see its page"
    return ", ".join(f"{name} {one.final(shown.artefact.metric).mean():.1f}" for name, one in found)
