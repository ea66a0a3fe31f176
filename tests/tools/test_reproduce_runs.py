"""The tool that trains committed runs anew: it sees a difference in one bit, and none where there is none."""

import importlib.util
import os
from pathlib import Path

import pytest

from horovod_byz.host import environment
from horovod_byz.training import config as configs
from horovod_byz.training.runs import RunFolder
from horovod_byz.training.train import Launch, train

pytestmark = pytest.mark.source
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool():
    """The tool; not loaded when the tests are collected, since only a checkout has it."""
    spec = importlib.util.spec_from_file_location("reproduce_runs", ROOT / "tools" / "reproduce_runs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_bit_and_a_missing_evaluation_are_differences(tool):
    before = [{"step": 0, "loss": 0.5, "train_loss": None}, {"step": 5, "loss": 0.25, "train_loss": 1.0}]
    assert list(tool.differences(before, [dict(record) for record in before])) == []
    changed = [before[0], {**before[1], "loss": 0.25000000000000006}]
    assert list(tool.differences(before, changed)) == ["step 5, loss: 0.25 before, 0.25000000000000006 now"]
    assert len(list(tool.differences(before, before[:1]))) == 3
    assert list(tool.differences(before[:1], [{"step": 0, "loss": 0.5}])) == [
        "step 0, train_loss: None before, None now"
    ]


def test_a_run_is_trained_anew_by_the_code_of_a_checkout(tool, tmp_path):
    settings = {"steps": 4, "workers": 3, "model": "mlp:width=4", "data": {"name": "digits", "batch": 4}}
    train(configs.make({**settings, "evaluate_every": 2}), Launch(tmp_path / "run"))
    run = RunFolder(tmp_path / "run")
    again = tool.trained(ROOT, run, tmp_path / "again", ["--steps", "2"])
    assert list(tool.differences(run.metrics[:2], again)) == []


@pytest.mark.slow
@pytest.mark.realdata
def test_a_committed_run_is_reproduced_bit_for_bit(tool, tmp_path):
    if not os.environ.get("HOROVOD_BYZ_DATA"):
        pytest.skip("HOROVOD_BYZ_DATA names no folder with the real data sets")
    run = RunFolder(ROOT / "results" / tool.RUNS[0])
    differ = list(tool.machines(run.environment, environment.describe()))
    if any(line.startswith(("cpu", "torch_simd")) for line in differ):
        pytest.skip("made on another kind of processor, whose matrix products have other last bits")
    now = tool.trained(ROOT, run, tmp_path / "run", [])
    assert list(tool.differences(run.metrics, now)) == []
