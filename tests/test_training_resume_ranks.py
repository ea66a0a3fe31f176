"""Real ranks: what stops one of them ends all, in one sentence, with an exit code and no traceback."""

import pathlib
import shutil
import subprocess
import sys

import pytest

import rank_jobs
from horovod_byz.training.runs import CHECKPOINTS, RunFolder
from rank_jobs import BACKENDS, HOROVODRUN, need_horovod, one_at_a_time, trained_here
from training import contents, unfinish

need_horovod()
pytestmark = pytest.mark.horovod

COMMAND = [sys.executable, "-m", "horovod_byz.cli", "train"]
PROGRAM = pathlib.Path(__file__).parent / "programs" / "command.py"
RUN = [
    "--steps",
    "6",
    "--workers",
    "4",
    "--model",
    "mlp:width=4",
    "--batch",
    "4",
    "--evaluate-every",
    "4",
    "--checkpoint-every",
    "4",
    "--worker-momentum",
    "0.9",
]


def run(command, *options, cwd=None):
    """Run a command to its end, as the only job on this machine."""
    environment = {**rank_jobs.os.environ, **rank_jobs.environment()}
    with one_at_a_time():
        return subprocess.run(
            [*command, *options],
            capture_output=True,
            text=True,
            timeout=280,
            env=environment,
            check=False,
            cwd=cwd,
        )


def test_ranks_resume_extend_and_refuse_with_a_clear_error(tmp_path):
    whole, folder = tmp_path / "whole", tmp_path / "run"
    trained_here(*RUN, "--out", folder)
    longer = run(COMMAND, "--resume", "--steps", "9", "--ranks", "2", "--out", folder)
    assert longer.returncode == 0, longer.stdout + longer.stderr
    trained_here(*RUN, "--steps", "9", "--out", whole)
    assert contents(folder) == contents(whole)

    for name in CHECKPOINTS:
        (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    refused = run(COMMAND, "--resume", "--steps", "12", "--ranks", "2", "--out", folder)
    assert refused.returncode == 1
    assert refused.stderr.startswith(
        f"horovod-byz: {folder / CHECKPOINTS[0]} has no digest: it was cut short"
    )
    assert len(refused.stderr.splitlines()) == 1, refused.stderr
    assert "Traceback" not in refused.stdout + refused.stderr
    assert RunFolder(folder).summary["steps"] == 9


@pytest.mark.parametrize("backend", BACKENDS)
def test_ranks_under_horovodrun_end_by_themselves(python, tmp_path, backend):
    folder = tmp_path / "run"
    trained_here(*RUN, "--out", folder)
    shutil.copy(folder / CHECKPOINTS[1], folder / CHECKPOINTS[0])
    (folder / CHECKPOINTS[0]).write_bytes(b"")
    (folder / CHECKPOINTS[1]).unlink()
    unfinish(folder)
    job = [*HOROVODRUN, *BACKENDS[backend], "-np", "2", *python(), PROGRAM, "train"]
    refused = run(job, "--resume", "--out", folder)
    output = refused.stdout + refused.stderr
    assert refused.returncode != 0
    assert (
        f"horovod-byz: {folder / CHECKPOINTS[0]} is empty. No checkpoint is left to continue from" in output
    )
    assert "horovod_byz/training" not in output, "a traceback of ours"


def test_ranks_import_a_users_own_rule_from_the_working_folder(tmp_path):
    (tmp_path / "ownrule.py").write_text(
        "from dataclasses import dataclass\n\nimport horovod_byz as hb\n\n\n"
        "@dataclass(frozen=True)\nclass Mine(hb.TrimmedMean):\n    pass\n"
    )
    ours, own = tmp_path / "ours", tmp_path / "own"
    trained_here(*RUN, "--rule", "trimmed-mean:f=1", "--out", ours)
    ended = run(COMMAND, *RUN, "--rule", "ownrule:Mine:f=1", "--ranks", "2", "--out", own, cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert (own / "metrics.jsonl").read_bytes() == (ours / "metrics.jsonl").read_bytes()
    assert 'name = "ownrule:Mine"' in (own / "config.toml").read_text()
    lost = run(COMMAND, *RUN, "--rule", "ownrule:Yours:f=1", "--ranks", "2", "--out", "lost", cwd=tmp_path)
    assert lost.returncode == 2
    assert "ownrule.py has no 'Yours'" in lost.stderr
