"""Runs as tables and from Python: export, compare, and the API of a single run."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
import types

import numpy as np
import pytest
from typer.testing import CliRunner

from horovod_byz.cli.main import app
from horovod_byz.training import api, tabular
from horovod_byz.training.config import ConfigError
from horovod_byz.training.export import _typed
from horovod_byz.training.runs import RunError, RunFolder

SMALL = {"workers": 5, "steps": 6, "evaluate_every": 3, "model": "mlp:width=4", "data": {"batch": 4}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three runs: two complete ones, and one that was begun."""
    root = tmp_path_factory.mktemp("runs")
    api.run({**SMALL, "rule": "median"}, root / "a" / "median")
    divided = {**SMALL["data"], "partition": "gamma:0.5"}
    attacked = {"byzantine": 1, "attack": "alie:z=zmax", "data": divided}
    api.run({**SMALL, **attacked, "rule": "krum:f=1"}, root / "krum")
    begun = root / "begun"
    begun.mkdir()
    (begun / "config.toml").write_text(
        (root / "krum" / "config.toml").read_text().replace("seed = 0", "seed = 7")
    )
    (begun / "run.json").write_text('{"environment": {}}')
    return root


def command(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_one_configuration_gives_its_series():
    result = api.run({**SMALL, "rule": "median"})
    assert result.steps.tolist() == [0, 3, 6]
    accuracies = result.series("accuracy")
    assert accuracies.shape == (3,)
    assert accuracies[-1] == result.accuracy == result.summary["accuracy"]
    assert np.isnan(result.series("train_loss")[0])
    assert len(result.verdicts["workers"]) == 5
    assert result.environment["label_skew"] == 0.0
    assert result.config.rule.name == "median"
    assert np.array_equal(api.run(result.config).series("loss"), result.series("loss"))


def test_a_run_from_python_is_that_of_the_command(tmp_path):
    api.run({**SMALL, "rule": "median"}, tmp_path / "here")
    words = "train --workers 5 --steps 6 --evaluate-every 3 --model mlp:width=4 --batch 4 --rule median --out"
    assert command(*words.split(), tmp_path / "there").exit_code == 0
    metrics = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("here", "there")]
    assert metrics[0] == metrics[1]
    again = api.run(tmp_path / "there" / "config.toml")
    assert again.steps.tolist() == [0, 3, 6]


def test_a_finished_run_gets_more_steps_from_python_and_from_the_command(tmp_path):
    out = tmp_path / "run"
    api.run(SMALL, out)
    assert api.run({**SMALL, "steps": 9}, out, resume=True).steps.tolist() == [0, 3, 6, 9]
    assert command("train", "--resume", "--steps", "12", "--out", out).exit_code == 0
    whole = api.run({**SMALL, "steps": 12})
    assert np.array_equal(api.read(out).series("loss"), whole.series("loss"))


def test_what_the_api_refuses(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="unknown option 'sead'"):
        api.run({"sead": 1})
    with pytest.raises(ConfigError, match="cannot read"):
        api.run(tmp_path / "none.toml")
    api.run(SMALL, tmp_path / "run")
    with pytest.raises(RunError, match="already holds a run"):
        api.run(SMALL, tmp_path / "run")
    monkeypatch.setattr(api, "launched", lambda: 2)
    with pytest.raises(RunError, match="2 ranks need a run folder that all of them see: give out="):
        api.run(SMALL)


def test_export_writes_a_row_per_evaluation_with_the_settings(folder, tmp_path):
    done = command("export", folder, "--csv", tmp_path / "all.csv")
    assert done.exit_code == 0, done.output
    assert "6 evaluations of 3 runs" in done.output.replace("\n", " ")
    with (tmp_path / "all.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [(row["run"], row["step"]) for row in rows] == [
        (run, step) for run in ("a/median", "krum") for step in ("0", "3", "6")
    ]
    median, krum = rows[0], rows[-1]
    assert (median["rule.name"], median["rule.f"], median["attack.name"]) == ("median", "", "none")
    assert (krum["rule.f"], krum["attack.z"], krum["data.partition.share"]) == ("1", "zmax", "0.5")
    assert float(krum["accuracy"]) == RunFolder(folder / "krum").summary["accuracy"]
    assert 0 < float(krum["label_skew"]) < 1
    assert median["train_loss"] == ""  # not measured before the first step
    assert {row["complete"] for row in rows} == {"True"}


def test_runs_of_several_folders_keep_apart(folder):
    both = tabular.kept([folder / "a", folder / "krum"])
    assert [run.name for run in both] == [str(folder / "a" / "median"), str(folder / "krum")]
    assert len(tabular.kept([folder, folder / "krum"])) == 3  # each once
    (hidden := folder / ".half.tmp").mkdir(exist_ok=True)
    (hidden / "config.toml").write_text("")
    assert len(tabular.kept([folder])) == 3


class Arrow(types.ModuleType):
    """Enough of pyarrow to see what is given to it."""

    def __init__(self):
        super().__init__("pyarrow")
        self.parquet = types.ModuleType("pyarrow.parquet")
        self.parquet.write_table = lambda table, file: file.write(json.dumps(table).encode())
        self.__spec__ = importlib.util.spec_from_loader("pyarrow", None)

    @staticmethod
    def table(columns):
        return columns


def test_parquet_gets_columns_of_one_type(folder, tmp_path, monkeypatch):
    arrow = Arrow()
    monkeypatch.setitem(sys.modules, "pyarrow", arrow)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", arrow.parquet)
    done = command("export", folder, "--parquet", tmp_path / "all.parquet")
    assert done.exit_code == 0, done.output
    columns = json.loads((tmp_path / "all.parquet").read_text())
    assert columns["step"] == [0, 3, 6, 0, 3, 6]
    assert columns["rule.f"] == [None] * 3 + [1] * 3
    assert columns["complete"] == [True] * 6
    mixed = tabular.Kept("x", {"attack.z": 1.5}, {}, ({"step": 0},), None, None)
    _, rows = tabular.rows([*tabular.kept([folder / "krum"]), mixed])
    assert _typed([row.get("attack.z") for row in rows]) == ["zmax", "zmax", "zmax", "1.5"]
    assert _typed([1, None, 2.5]) == [1.0, None, 2.5]


def test_export_says_what_is_missing(folder, tmp_path, monkeypatch):
    assert "name the file to write" in command("export", folder).output
    nothing = command("export", tmp_path, "--csv", tmp_path / "x.csv")
    assert (nothing.exit_code, "holds no run" in nothing.output) == (1, True)
    monkeypatch.setattr("horovod_byz.common.extras.find_spec", lambda name: None)
    absent = command("export", folder, "--parquet", tmp_path / "x.parquet")
    assert absent.exit_code == 1
    assert 'pyarrow is not installed: pip install "horovod-byz[export]"' in " ".join(absent.output.split())
    assert not (tmp_path / "x.parquet").exists()


def test_compare_shows_final_accuracies_and_what_differs(folder):
    shown = command("compare", folder)
    assert shown.exit_code == 0, shown.output
    for text in ("krum:f=1", "alie:z=zmax", "data.partition", "seed", "3 runs", "%"):
        assert text in shown.output
    assert "Equal in all: data.name = digits, model = mlp:width=4, workers = 5" in " ".join(
        shown.output.split()
    )
    data = json.loads(command("compare", folder, "--json").output)
    assert "workers" not in data["differing"]
    runs = {run["run"]: run for run in data["runs"]}
    assert runs["krum"]["accuracy"] == RunFolder(folder / "krum").summary["accuracy"]
    assert runs["krum"]["settings"]["rule"] == "krum:f=1"
    assert runs["krum"]["settings"]["data.partition"] == "gamma:share=0.5"
    assert runs["a/median"]["settings"]["rule"] == "median"
    assert (runs["begun"]["complete"], runs["begun"]["accuracy"]) == (False, None)
    single = command("compare", folder / "krum")
    assert single.exit_code == 0
    assert "1 runs" in single.output
