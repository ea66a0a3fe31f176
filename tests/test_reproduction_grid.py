"""An experiment file becomes runs; what is complete is not run again; tables come from folders alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from horovod_byz.cli.main import app
from horovod_byz.reproduction import compute as computing
from horovod_byz.reproduction.artefact import Artefact
from horovod_byz.reproduction.catalogue import Catalogue
from horovod_byz.reproduction.compute import Workplace, compute
from horovod_byz.reproduction.grid import Grid, merged
from horovod_byz.reproduction.overview import reproduce_all
from horovod_byz.reproduction.reproduce import look, page, reproduce
from horovod_byz.reproduction.series import read
from horovod_byz.training import config as configs
from horovod_byz.training.config import ConfigError
from horovod_byz.training.runs import RunError, RunFolder
from horovod_byz.training.train import Launch, train

EXPERIMENTS = Path(__file__).parents[1] / "launch" / "experiments"
GRID = """
seeds = 2
leave_out = [{ rule = "Krum", seed = "1" }]
[base]
workers = 7
steps = 2
data = { name = "digits", batch = 4 }
[axes.rule]
Krum = { rule = "krum:f=1" }
"Median, b = 8" = { rule = "median", data = { batch = 8 } }
"""
ARTEFACT = """
title = "small"
paper = "all"
shows = "Nothing"
runs = "small"
slices = [{}]
[[claims]]
claim = "Krum is no oracle"
of = { rule = "Krum" }
below = 100
[[claims]]
claim = "Median never crashes"
of = { rule = "Median, b = 8" }
statistic = "crashed"
most = 0
explanation = "It does."
"""


@pytest.fixture
def experiments(tmp_path):
    (tmp_path / "grids").mkdir()
    (tmp_path / "grids" / "small.toml").write_text(GRID)
    (tmp_path / "small.toml").write_text(ARTEFACT)
    return tmp_path


@pytest.fixture
def small(experiments):
    return Grid.read(experiments / "grids" / "small.toml")


class Here:
    """A pool that computes in this process: a process of its own imports torch for seconds."""

    def __init__(self, *settings, **more):
        pass

    def submit(self, function, *arguments):
        future = Future()
        future.set_result(function(*arguments))
        return future

    def shutdown(self, cancel_futures):
        pass


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(computing, "ProcessPoolExecutor", Here)


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".tmp"}


def test_cells_are_the_product_without_what_is_left_out(small):
    assert [cell.name for cell in small.cells] == ["Krum_0", "Median-b=8_0", "Median-b=8_1"]
    assert [cell.config.data.batch for cell in small.cells] == [4, 8, 8]
    assert [cell.config.seed for cell in small.cells] == [0, 0, 1]
    assert [cell.name for cell in small.select({"rule": ["Krum"]})] == ["Krum_0"]
    assert [cell.name for cell in small.select({}, repeats=1)] == ["Krum_0", "Median-b=8_0"]
    with pytest.raises(ConfigError, match="unknown label of axis 'rule' of grid 'small' 'Krun'"):
        small.select({"rule": "Krun"})


def test_a_grid_like_another_changes_what_it_states(experiments):
    (experiments / "grids" / "large.toml").write_text(
        'like = "small"\nseeds = 1\nleave_out = []\n[base.data]\nbatch = 5\n'
    )
    grid = Grid.read(experiments / "grids" / "large.toml")
    assert [(cell.name, cell.config.data.batch) for cell in grid.cells] == [
        ("Krum_0", 5),
        ("Median-b=8_0", 8),
    ]
    assert merged({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}) == {"a": {"b": 1, "c": 3}}


def test_no_two_runs_share_a_folder(experiments):
    path = experiments / "grids" / "small.toml"
    path.write_text('[axes.epsilon]\n10 = {attack = "none"}\n"-10" = {attack = "none"}\n')
    assert [cell.name for cell in Grid.read(path).cells] == ["10", "minus10"]
    path.write_text('[axes.rule]\n"Krum, f = 1" = {rule = "krum:f=1"}\n"Krum f=1" = {rule = "krum:f=1"}\n')
    with pytest.raises(
        ConfigError, match="'Krum, f = 1' and 'Krum f=1' of axis 'rule' would share the folder"
    ):
        Grid.read(path)


def test_a_wrong_run_is_named(experiments):
    path = experiments / "grids" / "small.toml"
    path.write_text(GRID.replace("krum:f=1", "krum:f=9"))
    with pytest.raises(ConfigError, match=r"run \{'rule': 'Krum', 'seed': '0'\}: .*at least 21 workers"):
        Grid.read(path).select({})


def test_reproduces_in_one_go_and_then_at_once(experiments, here, tmp_path):
    artefact, place = Artefact.read(experiments / "small.toml"), Workplace(tmp_path / "out", jobs=1)
    shown = reproduce(artefact, Catalogue(experiments), place)
    assert [verdict.status for verdict in shown.verdicts] == ["PASS", "FAIL"]
    assert "It does." in shown.verdicts[1].note
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "small").rglob("metrics.jsonl")}
    assert len(before) == 3
    kept = files_of(tmp_path / "out")
    assert {path.name for path in kept} == {
        "config.toml",
        "metrics.jsonl",
        "run.json",
        "README.md",
        "figure.png",
    }
    reproduce(artefact, Catalogue(experiments), place)
    assert files_of(tmp_path / "out") == kept
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_each_file_is_read_once_and_each_run_made_once(experiments, monkeypatch):
    read, made = [], []
    for module, calls, name in ((configs, read, "read"), (configs, made, "make")):
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda value, o=original, c=calls: (c.append(value), o(value))[1])
    catalogue = Catalogue(experiments)
    assert catalogue.names == ("small",)
    for _ in range(2):
        artefact = catalogue.artefact("small")
        cells = catalogue.cells(artefact)
        assert [catalogue.of(artefact, part) for part in artefact.parts]
    assert sorted(path.name for path in read) == ["small.toml", "small.toml"]
    assert catalogue.cells(catalogue.artefact("small", repeats=1)) == tuple(
        cell for cell in cells if cell.labels.get("seed", "0") == "0"
    )
    assert len(made) == len(
        {cell.name for cell in catalogue.grid("small").cells} & {cell.name for cell in cells}
    )


def test_a_run_of_the_train_command_counts_as_one_of_a_grid(experiments, here, tmp_path):
    """`reproduce` keeps a part of a run's files; a folder that `train` wrote is read all the same."""
    catalogue, out = Catalogue(experiments), tmp_path / "out"
    artefact = catalogue.artefact("small")
    reproduce(artefact, catalogue, Workplace(out, jobs=1))
    before = look(artefact, catalogue, out)
    cell = catalogue.cells(artefact)[0]
    shutil.rmtree(cell.folder(out).path)
    train(cell.config, Launch(cell.folder(out).path))
    assert cell.folder(out).notes == {}
    after = look(artefact, catalogue, out)
    assert after.verdicts == before.verdicts
    assert page(after) == page(before)


def test_a_missing_run_is_named(experiments, here, tmp_path):
    artefact, place = Artefact.read(experiments / "small.toml"), Workplace(tmp_path / "out", jobs=1)
    compute(Catalogue(experiments).cells(artefact)[:2], place, "part")
    with pytest.raises(RunError, match="'Median-b=8_1' is missing"):
        look(artefact, Catalogue(experiments), place.results)


def test_another_run_in_the_folder_is_not_taken_for_it(small, experiments, here, tmp_path):
    place = Workplace(tmp_path / "out", jobs=1)
    compute(small.cells[:1], place, "part")
    path = experiments / "grids" / "small.toml"
    path.write_text(GRID.replace("steps = 2", "steps = 3"))
    with pytest.raises(RunError, match="holds a run with another configuration"):
        compute(Grid.read(path).cells, place, "part")


def test_the_same_seed_gives_the_same_metrics_file(small, tmp_path, monkeypatch):
    compute(small.cells[:1], Workplace(tmp_path / "one", jobs=1), "in a process of its own")
    monkeypatch.setattr(computing, "ProcessPoolExecutor", Here)
    compute(small.cells[:1], Workplace(tmp_path / "two", jobs=1), "here")
    files = [(tmp_path / name / "small" / "Krum_0" / "metrics.jsonl").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]


def test_a_shortened_form_is_labelled_and_kept_apart(experiments, here, tmp_path):
    artefact = Artefact.read(experiments / "small.toml", repeats=1, steps=1)
    reproduce(artefact, Catalogue(experiments), Workplace(tmp_path / "out", jobs=1))
    text = (tmp_path / "out" / "small-repeats1-steps1" / "README.md").read_text()
    assert "**Reduced: 1 repeat only; 1 steps only.**" in text
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "small-repeats1-steps1",
        "small-steps1",
    ]


def test_a_form_of_an_artefact_explains_the_claims_that_it_took_over(experiments):
    path = experiments / "form.toml"
    path.write_text('like = "small"\n[explanations]\n"Krum is no oracle" = "It is, here."\n')
    assert [claim.explanation for claim in Artefact.read(path).claims] == ["It is, here.", "It does."]
    path.write_text('like = "small"\n[explanations]\n"Krum is an oracle" = "?"\n')
    with pytest.raises(ConfigError, match="unknown claim in explanations 'Krum is an oracle': did you mean"):
        Artefact.read(path)


def test_the_overview_shows_the_fullest_form_there_is(experiments, here, tmp_path):
    def line(**shortened):
        reproduce_all(["small"], Catalogue(experiments), Workplace(tmp_path / "out", jobs=1), **shortened)
        text = (tmp_path / "out" / "README.md").read_text()
        return next(row for row in text.splitlines() if row.startswith("| Nothing"))

    first = line(steps=1)
    assert "[small-steps1](small-steps1/README.md)" in first
    assert "* Nothing (the four papers): `make small`" in (tmp_path / "out" / "README.md").read_text()
    assert "[small-repeats1](" in line(repeats=1)
    assert "[small-repeats1](" in line(repeats=1, steps=1)
    assert "[small](small/README.md)" in line()
    assert "[small](small/README.md)" in line(steps=1)
    (tmp_path / "out" / "small" / "Krum_0" / "run.json").unlink()
    assert "[small-steps1](" in line(steps=1)


def test_a_growing_artefact_shows_the_seeds_that_are_there(experiments, here, tmp_path):
    path = experiments / "grids" / "small.toml"
    path.write_text(GRID.replace("seeds = 2", "seeds = [3, 5]").replace('seed = "1"', 'seed = "5"'))
    catalogue, out = Catalogue(experiments), tmp_path / "out"
    cells = catalogue.cells(catalogue.artefact("small"))
    assert [cell.name for cell in cells] == ["Krum_3", "Median-b=8_3", "Median-b=8_5"]
    compute(cells[:2], Workplace(out, jobs=1), "small")
    with pytest.raises(RunError, match="the run 'Median-b=8_5' is missing"):
        read(cells, out)
    assert [len(series.runs) for series in read(cells, out, growing=True)] == [1, 1]
    shutil.rmtree(out / "small" / "Krum_3")
    with pytest.raises(RunError, match="the run 'Krum_3' is missing"):
        read(cells, out, growing=True)


@pytest.mark.slow
def test_killed_half_way_it_loses_the_runs_in_flight_only(experiments, here, tmp_path):
    path = experiments / "grids" / "small.toml"
    path.write_text(GRID.replace("seeds = 2", "seeds = 6").replace("steps = 2", "steps = 20"))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "horovod_byz.cli", "reproduce", "small", "--jobs", "1"]
    command += ["--experiments", str(experiments), "--results", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("[ 3/11]"):
                break
        workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    _, left = psutil.wait_procs(workers, timeout=60)
    assert not left, "workers outlive their parent"
    complete = [path for path in (out / "small").iterdir() if RunFolder(path).complete]
    assert len(complete) >= 3
    kept = {path: path.read_bytes() for run in complete for path in run.iterdir()}
    artefact = Artefact.read(experiments / "small.toml")
    reproduce(artefact, Catalogue(experiments), Workplace(out, jobs=1))
    assert {path: path.read_bytes() for path in kept} == kept
    assert len(list((out / "small").glob("*/run.json"))) == 11
    assert not [path for path in (out / "small").glob(".*.tmp") if path.is_dir()]


def test_a_clear_error_when_the_process_of_a_run_is_killed(experiments, tmp_path, monkeypatch):
    class Killer(computing._Meter):
        def advance(self, name, seconds):
            super().advance(name, seconds)
            for worker in psutil.Process().children():
                if "spawn_main" in " ".join(worker.cmdline()):
                    worker.kill()

    path = experiments / "grids" / "small.toml"
    path.write_text(GRID.replace("seeds = 2", "seeds = 6").replace("steps = 2", "steps = 60"))
    monkeypatch.setattr(computing, "_Meter", Killer)
    command = ["reproduce", "small", "--jobs", "1", "--experiments", str(experiments)]
    result = CliRunner().invoke(app, [*command, "--results", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "[ 1/11]" in result.output
    assert "a process that computed a run was killed" in result.output
    assert "Traceback" not in result.output


@pytest.mark.source
@pytest.mark.parametrize("name", Catalogue(EXPERIMENTS).names if EXPERIMENTS.is_dir() else [])
def test_every_experiment_can_be_read(name):
    artefact = Artefact.read(EXPERIMENTS / f"{name}.toml")
    assert artefact.calculate or Catalogue(EXPERIMENTS).cells(artefact)
    assert artefact.sets, "belongs to no set"
    assert bool(artefact.reduced) == name.endswith("-small")
    assert len({cell.folder(Path()).path for cell in Catalogue(EXPERIMENTS).cells(artefact)}) == len(
        Catalogue(EXPERIMENTS).cells(artefact)
    )


@pytest.mark.source
def test_the_pairings_are_the_papers():
    grid = Grid.read(EXPERIMENTS / "grids" / "detox-pairings.toml")
    assert len(grid.cells) == 195  # three seeds, and eight of ALIE with z = 1 by 5 workers
    assert {cell.config.workers for cell in grid.cells} == {45}
    for cell in grid.cells:
        groups = len(cell.config.make_redundancy().groups_of(45))
        assert groups * cell.config.data.batch == 360


@pytest.mark.source
def test_the_figures_of_xie2018_share_runs_and_keep_its_numbers():
    cells = [
        cell
        for figure in range(2, 7)
        for cell in Catalogue(EXPERIMENTS).cells(Artefact.read(EXPERIMENTS / f"xie2018-fig{figure}.toml"))
    ]
    assert {cell.grid for cell in cells} == {"xie2018-mnist"}
    assert {cell.config.workers for cell in cells} == {20}
    attacked = {cell.config.attack.name: cell.config.byzantine for cell in cells}
    assert attacked == {"none": 0, "gaussian": 6, "omniscient": 6, "bit-flip": 8, "gambler": 8} | {
        "none": attacked["none"]
    }
    folders = {cell.folder(Path()).path for cell in cells}
    assert len(folders) == 10 * (7 + 3 + 4 * 7 + 1 + 1)
