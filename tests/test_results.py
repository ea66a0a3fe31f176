"""The committed evidence: every page is what the present code makes of its runs, and every target has one."""

from __future__ import annotations

import pathlib
import re

import pytest

from horovod_byz.reproduction import overview
from horovod_byz.reproduction.artefact import Artefact
from horovod_byz.reproduction.catalogue import Catalogue
from horovod_byz.reproduction.grid import matches
from horovod_byz.reproduction.reproduce import look, page

pytestmark = pytest.mark.source

ROOT = pathlib.Path(__file__).parents[1]
EXPERIMENTS, RESULTS = ROOT / "launch" / "experiments", ROOT / "results"
CATALOGUE = Catalogue(EXPERIMENTS)
NAMES = sorted(path.stem for path in EXPERIMENTS.glob("*.toml") if "\ntitle" in "\n" + path.read_text())


def artefacts() -> dict[str, Artefact]:
    """What is shown, by folder, also in a form that a command reduced (`empires-fig1-steps600`)."""
    names = "|".join(sorted(map(re.escape, NAMES), key=len, reverse=True))
    form = re.compile(rf"({names})(?:-repeats(\d+))?(?:-steps(\d+))?")
    matches = {path.name: form.fullmatch(path.name) for path in sorted(RESULTS.glob("*")) if path.is_dir()}
    return {
        name: CATALOGUE.artefact(
            match[1], repeats=match[2] and int(match[2]), steps=match[3] and int(match[3])
        )
        for name, match in matches.items()
        if match
    }


SHOWN = artefacts()


@pytest.mark.parametrize("name", SHOWN)
def test_a_page_is_made_of_its_runs(name):
    shown = look(SHOWN[name], CATALOGUE, RESULTS)
    assert (RESULTS / name / "README.md").read_text() == page(shown), f"stale: make {name}"
    if "figure.png" in page(shown):
        assert (RESULTS / name / "figure.png").is_file()


def test_every_target_has_evidence_of_its_own_or_of_its_small_form():
    shown = {re.sub(r"(-small)?(-repeats\d+)?(-steps\d+)?$", "", name) for name in SHOWN}
    assert [name for name in NAMES if re.sub("-small$", "", name) not in shown] == []


def test_what_fails_is_explained():
    for name in SHOWN:
        for verdict in look(SHOWN[name], CATALOGUE, RESULTS).verdicts:
            if verdict.status == "FAIL":
                assert verdict.note, f"{name}: {verdict.claim}"


@pytest.mark.parametrize("name", SHOWN)
def test_what_passes_has_the_seeds_that_it_needs(name):
    shown = look(SHOWN[name], CATALOGUE, RESULTS)
    every = [*shown.references.values(), *shown.series]
    for claim, verdict in zip(shown.artefact.claims, shown.verdicts, strict=True):
        if claim.value or claim.same_metrics_as or verdict.status not in ("PASS", "FAIL"):
            continue
        seeds = int(verdict.seeds.partition(" to ")[0])
        about = [part for part in every if matches(part.labels, claim.of)]
        guesses = any(run.guesses for part in every for run in part.runs)
        refuted = claim.statistic == "crashed" and verdict.status == "FAIL"
        assert seeds >= 5 or guesses or refuted, f"{name}: {verdict.claim}"
        assert not any(part.spared for part in about), f"{name}: {verdict.claim}"


def test_every_attacked_vote_shows_its_losses():
    for name in SHOWN:
        shown = look(SHOWN[name], CATALOGUE, RESULTS)
        text = page(shown)
        for series in shown.series:
            if series.votes:
                assert "votes lost" in text, name
                assert series.votes in text, name
                noted = [run.record.get("notes", {}).get("byzantine_votes") for run in series.runs]
                assert all(
                    note in (None, run.lost_votes) for note, run in zip(noted, series.runs, strict=True)
                )


def test_the_overview_is_made_of_the_results():
    assert (RESULTS / "README.md").read_text() == overview.text(CATALOGUE, RESULTS)
