"""The committed evidence: every page is what the present code makes of its runs, and every target has one."""

from __future__ import annotations

import pathlib
import re

import pytest

from horovod_byz.reproduction import overview
from horovod_byz.reproduction.catalogue import Catalogue
from horovod_byz.reproduction.reproduce import look, page

pytestmark = pytest.mark.source

ROOT = pathlib.Path(__file__).parents[1]
EXPERIMENTS, RESULTS = ROOT / "launch" / "experiments", ROOT / "results"
CATALOGUE = Catalogue(EXPERIMENTS)
NAMES = sorted(path.stem for path in EXPERIMENTS.glob("*.toml") if "\ntitle" in "\n" + path.read_text())
SHOWN = [name for name in NAMES if (RESULTS / name).is_dir()]


@pytest.mark.parametrize("name", SHOWN)
def test_a_page_is_made_of_its_runs(name):
    shown = look(CATALOGUE.artefact(name), CATALOGUE, RESULTS)
    assert (RESULTS / name / "README.md").read_text() == page(shown), f"stale: make {name}"
    if "figure.png" in page(shown):
        assert (RESULTS / name / "figure.png").is_file()


def test_every_target_has_evidence_of_its_own_or_of_its_small_form():
    """Also of a form that a command reduced, such as `empires-fig1-steps600`."""
    reduced = re.compile(r"(-small)?(-repeats\d+)?(-steps\d+)?")
    assert [
        name
        for name in NAMES
        if not any(shown.startswith(name) and reduced.fullmatch(shown[len(name) :]) for shown in SHOWN)
    ] == []


def test_what_fails_is_explained():
    for name in SHOWN:
        for verdict in look(CATALOGUE.artefact(name), CATALOGUE, RESULTS).verdicts:
            if verdict.status == "FAIL":
                assert verdict.note, f"{name}: {verdict.claim}"


def test_the_overview_is_made_of_the_results():
    assert (RESULTS / "README.md").read_text() == overview.text(CATALOGUE, RESULTS)
