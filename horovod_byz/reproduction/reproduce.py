"""Reproduces an artefact: computes what is missing, then writes table, figure and verdicts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from horovod_byz.reproduction import bars, calculations, figures, heatmaps, own, tables
from horovod_byz.reproduction.artefact import Artefact
from horovod_byz.reproduction.catalogue import Catalogue
from horovod_byz.reproduction.claims import Verdict, judge
from horovod_byz.reproduction.compute import Workplace, compute
from horovod_byz.reproduction.series import Run, Series, read
from horovod_byz.training.runs import RunError, replace_file

__all__ = ["Shown", "look", "reproduce"]

PAPERS = {
    "detox": "Rajput, Wang, Charles, Papailiopoulos (2019), DETOX",
    "detox-response": "Rajput, Wang, Charles, Papailiopoulos (2019), author response on DETOX",
    "xie2018": "Xie, Koyejo, Gupta (2018), Generalized Byzantine-tolerant SGD",
    "empires": "Xie, Koyejo, Gupta (2019), Fall of Empires",
    "brsgd": "Li, Chen, Dong, Zhang, Wang, Zeng (2021), BrSGD",
    "all": "the four papers",
}


_BANDS = "Lines are means over the repeats, bands and bars one standard error to each side; dots are repeats."
_VOTES = (
    "Votes lost: how many redundancy groups the Byzantine workers outvote, in the order of the seeds, or "
    "on average per step where they are drawn anew at each. Where it is 0, nothing attacks DETOX."
)


@dataclass(frozen=True)
class Shown:
    """The content of an artefact, read from its runs alone.

    Attributes:
        artefact: which.
        series: what it shows.
        references: by name, what that is compared with.
        values: calculated quantities, of an artefact without runs.
        verdicts: one per claim.
    """

    artefact: Artefact
    series: tuple[Series, ...]
    references: Mapping[str, Series]
    values: Mapping[str, Any]
    verdicts: tuple[Verdict, ...]


def reproduce(artefact: Artefact, catalogue: Catalogue, place: Workplace) -> Shown:
    """Computes an artefact's missing runs, and writes its table, figure and claims beside each other.

    Raises:
        RunError: if a run is missing or its folder holds another one.
        ConfigError: if the artefact or its grid is wrong.
        DatasetMissing: if the data cannot be found.
    """
    own.check(artefact, catalogue, PAPERS)
    target = place.results / artefact.folder
    if artefact.calculate:
        values = target / "values.json"
        if not values.is_file():
            target.mkdir(parents=True, exist_ok=True)
            calculated = calculations.by_name(artefact.calculate)()
            replace_file(values, (json.dumps(calculated, indent=1) + "\n").encode())
    else:
        compute(catalogue.cells(artefact), place, artefact.name)
    shown = look(artefact, catalogue, place.results)
    target.mkdir(parents=True, exist_ok=True)
    if shown.series and artefact.figure.kind == "heatmap":
        heatmaps.draw(shown.artefact, shown.series, target / "figure.png")
    elif shown.series and artefact.figure.kind != "none":
        figures.draw(shown.artefact, shown.series, shown.references, target / "figure.png")
    if artefact.figure.bars:
        bars.draw(artefact, shown.values, target / "figure.png")
    replace_file(target / "README.md", page(shown).encode())
    return shown


def look(artefact: Artefact, catalogue: Catalogue, results: Path) -> Shown:
    """Reads an artefact's runs, or its calculated values, and judges its claims.

    Raises:
        RunError: naming the first run that is missing.
    """
    values: Mapping[str, Any] = {}
    series: tuple[Series, ...] = ()
    references: dict[str, Series] = {}
    if artefact.calculate:
        path = results / artefact.folder / "values.json"
        if not path.is_file():
            raise RunError(
                f"{path} is missing: calculate it first with horovod-byz reproduce {artefact.name}"
            )
        values = json.loads(path.read_text())
    for part in artefact.slices:
        groups = read(catalogue.of(artefact, part), results, growing=artefact.growing)
        series += tuple(Series({**group.labels, **part.labels}, group.runs) for group in groups)
    for reference in artefact.references:
        groups = read(catalogue.of(artefact, reference), results, growing=artefact.growing)
        if len(groups) != 1:
            raise RunError(f"the reference {reference.name!r} means {len(groups)} series: it has to be one")
        references[reference.name] = Series({**groups[0].labels, **reference.labels}, groups[0].runs)
    artefact = own.completed(artefact, series)
    shown = [*references.values(), *series]
    verdicts = tuple(judge(claim, shown, values, artefact.metric) for claim in artefact.claims)
    return Shown(artefact, series, references, values, verdicts)


def page(shown: Shown) -> str:
    """The README of an artefact: table, figure, claims, and what differs from the paper."""
    artefact = shown.artefact
    lines = [f"# {artefact.title}", "", own.source(artefact, PAPERS)]
    if artefact.reduction:
        of_paper = " n, f and the attack are the paper's." * bool(artefact.paper)
        lines += ["", f"**Reduced: {artefact.reduction}.**{of_paper}"]
        if artefact.reduced:
            full = artefact.full or artefact.name.removesuffix("-small")
            lines[-1] += f" In full: `make {full} DEVICE=cuda`."
    if shown.series:
        lines += ["", *_conditions(shown)]
        if artefact.figure.kind == "heatmap":
            lines += ["", *heatmaps.table(artefact, shown.series)]
        lines += ["", *tables.accuracies(artefact, shown.series, shown.references)]
        lines += tables.by_votes(artefact, shown.series)
        if artefact.figure.kind != "none":
            lines += ["", "![the figure](figure.png)"]
            if artefact.figure.kind != "heatmap" and any(len(series.runs) > 1 for series in shown.series):
                lines += ["", _BANDS]
    if shown.values:
        lines += ["", *tables.calculated(shown.values)]
        if artefact.figure.bars:
            lines += ["", "![the figure](figure.png)"]
    lines += ["", "## Claims", "", *tables.claims(shown.verdicts)]
    if artefact.says:
        lines += ["", "## What the paper says", "", artefact.says]
    if artefact.differences:
        lines += [
            "",
            "## What differs from the paper" if artefact.paper else "## Notes",
            "",
            *(f"* {difference}" for difference in artefact.differences),
        ]
    lines += [
        "",
        f"Made by `{'make' if artefact.paper else 'horovod-byz reproduce'} {artefact.name}` from the runs "
        "beside this folder; see docs/reproduction.md.",
    ]
    return "\n".join(lines) + "\n"


def _conditions(shown: Shown) -> list[str]:
    """The common settings of the runs, and their notes."""
    runs = [run for series in (*shown.references.values(), *shown.series) for run in series.runs]
    configs = [run.config for run in runs]

    def each(values: Iterable[Any]) -> str:
        words = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
        return " or ".join(dict.fromkeys(words))

    subject = each(f"{config.model} on {config.data.name}" for config in configs)
    batch = each(sorted({config.data.batch for config in configs}))
    rate = each(sorted({config.optimizer.lr for config in configs}))
    counts = sorted({len(series.runs) for series in shown.series})
    repeats = f"{each(counts)} repeats. Means over the repeats, ± their standard error."
    lines = [
        f"{subject}; {each(config.workers for config in configs)} workers, batch {batch} per worker, "
        f"{each(config.steps for config in configs)} steps, learning rate {rate}; "
        f"{'one repeat.' if counts == [1] else repeats}"
    ]
    if any(series.votes for series in shown.series):
        lines += ["", _VOTES]
    return [*lines, *_gambles(runs)]


def _gambles(runs: Iterable[Run]) -> list[str]:
    """Per seed, what the gambler hits, as noted beside the runs."""
    noted = {run.config.seed: run.record["notes"] for run in runs if _note(run, "nonzero") is not None}
    if not noted:
        return []
    lines = [
        "",
        *tables.head("seed", "attacked coordinates", "of them non-zero", "P(some step has no clean row)"),
    ]
    for seed, notes in sorted(noted.items()):
        begin, end = notes["attacked"]
        lines.append(
            tables.row(str(seed), f"{begin} to {end - 1}", f"{notes['nonzero']:.2f}", f"{notes['crash']:.3f}")
        )
    return lines


def _note(run: Run, name: str) -> Any:
    return run.record.get("notes", {}).get(name)


def count(verdicts: Sequence[Verdict]) -> str:
    """The numbers of claims by their outcome, as text."""
    statuses = ("PASS", "FAIL", "NOT DECIDED", "OUTSIDE THE ASSUMPTION")
    counts = {status: sum(verdict.status == status for verdict in verdicts) for status in statuses}
    return ", ".join(f"{number} {status}" for status, number in counts.items() if number) or "none"
