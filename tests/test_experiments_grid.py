"""An experiment file becomes runs; what is complete is not run again; tables come from folders alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from horovod_byz.experiments import pairings
from horovod_byz.experiments.config import ConfigError
from horovod_byz.experiments.grid import Grid
from horovod_byz.experiments.runs import RunError, RunFolder

EXPERIMENTS = Path(__file__).parents[1] / "launch" / "experiments"
SMALL = """
title = "small"
leave_out = [{ rule = "Krum", seed = "1" }]
[base]
workers = 7
steps = 2
data = { name = "digits", batch = 4 }
[axes.rule]
Krum = { rule = "krum:f=1" }
Median = { rule = "median", data = { batch = 8 } }
[axes.seed]
0 = { seed = 0 }
1 = { seed = 1 }
"""


@pytest.fixture
def small(tmp_path):
    (tmp_path / "small.toml").write_text(SMALL)
    return Grid.read(tmp_path / "small.toml")


def test_cells_are_the_product_without_what_is_left_out(small):
    assert [cell.name for cell in small.cells] == ["Krum_0", "Median_0", "Median_1"]
    assert [cell.config.data.batch for cell in small.cells] == [4, 8, 8]
    assert [cell.config.seed for cell in small.cells] == [0, 0, 1]


def test_a_wrong_run_is_named(tmp_path):
    (tmp_path / "bad.toml").write_text(SMALL.replace("krum:f=1", "krum:f=9"))
    with pytest.raises(ConfigError, match=r"run \{'rule': 'Krum', 'seed': '0'\}: .*at least 21 workers"):
        Grid.read(tmp_path / "bad.toml")


def test_complete_runs_are_left_alone(small, tmp_path):
    small.compute(tmp_path / "out", jobs=1)
    assert small.missing(tmp_path / "out") == []
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert before
    assert not any(path.name == "checkpoint.pt" for path in before)
    small.compute(tmp_path / "out", jobs=1)
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.source
def test_the_pairings_are_the_papers():
    grid = Grid.read(EXPERIMENTS / "detox-pairings.toml")
    assert len(grid.cells) == 132
    assert {cell.config.workers for cell in grid.cells} == {45}
    for cell in grid.cells:
        groups = len(cell.config.make_redundancy().groups_of(45))
        assert groups * cell.config.data.batch == 360


@pytest.mark.source
def test_the_table_names_a_missing_run(tmp_path):
    grid = Grid.read(EXPERIMENTS / "detox-pairings.toml")
    with pytest.raises(RunError, match="Median_ALIE"):
        pairings.accuracies(grid, tmp_path)


@pytest.mark.source
def test_table_and_figure(tmp_path):
    grid = Grid.read(EXPERIMENTS / "detox-pairings.toml")
    for number, cell in enumerate(grid.cells):
        folder = RunFolder(tmp_path / grid.name / cell.name)
        folder.path.mkdir(parents=True)
        folder.write_json("summary.json", {"accuracy": number / 200})
    found = pairings.accuracies(grid, tmp_path)
    text = pairings.table(grid, found, 80.0)
    assert text.count("\n| ") == 26  # header, rule, 24 cells
    assert "does not hold" in text
    pairings.draw(grid, found, 80.0, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
