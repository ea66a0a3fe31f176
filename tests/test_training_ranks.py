"""Training on Horovod ranks: the same numbers as in one process, also through Ctrl-C and --resume."""

import os
import pathlib
import signal
import sys
import time

import pytest

import rank_jobs
from horovod_byz.training import launcher
from horovod_byz.training.progress import Silent
from horovod_byz.training.runs import RunFolder
from rank_jobs import BACKENDS, HOROVODRUN, Job, finish, need_horovod, one_at_a_time, trained_here
from training import contents

need_horovod()
pytestmark = pytest.mark.horovod

COMMAND = pathlib.Path(__file__).parent / "programs" / "command.py"
TRAIN = ["-m", "horovod_byz.cli", "train"]
RUN = "--steps 60 --workers 7 --byzantine 2 --attack omniscient --rule krum --model mlp:width=16 --batch 8"


@pytest.fixture
def environment(monkeypatch):
    """One job at a time, whose ranks import the package that is tested."""
    for name, value in rank_jobs.environment().items():
        monkeypatch.setenv(name, value)
    with one_at_a_time():
        yield


def alone(folder, *options):
    trained_here(*RUN.split(), *options, "--out", folder)


def interrupted(command, folder, after):
    """Starts a job, presses Ctrl-C there after some evaluations, and waits for its end; what it printed."""
    with Job(command, os.environ, limit=180) as job:
        deadline = time.monotonic() + 120
        while len(RunFolder(folder).metrics) < after and job.process.poll() is None:
            assert time.monotonic() < deadline, job.printed[-3000:]
            time.sleep(0.05)
        if job.process.poll() is None:
            os.killpg(job.process.pid, signal.SIGINT)
        ended = job.wait() is not None
        assert ended, f"the job did not end after Ctrl-C:\n{job.printed[-9000:]}"
        return job.printed[-3000:]


@pytest.mark.parametrize("backend", BACKENDS)
def test_ctrl_c_and_resume_on_two_ranks_give_the_numbers_of_one_process(
    environment, python, tmp_path, backend, monkeypatch
):
    # Seconds that mpirun leaves the ranks after Ctrl-C. Its one is too few for a checkpoint beside a load.
    monkeypatch.setenv("OMPI_MCA_odls_base_sigkill_timeout", "60")
    job = [*HOROVODRUN, *BACKENDS[backend], "-np", "2"]
    options = ["--steps", "2000", "--evaluate-every", "4", "--out", str(tmp_path / "run")]
    output = interrupted([*job, sys.executable, *TRAIN, *RUN.split(), *options], tmp_path / "run", after=5)
    folder = RunFolder(tmp_path / "run")
    # Neither exit code nor last words can be relied on: on Gloo horovodrun's helper may reap a rank's shell
    # before its own wait does, and 130 becomes 0; mpirun may drop what a rank prints while it ends.
    assert not folder.complete, output
    stopped = folder.load_checkpoint()["step"]
    assert stopped >= 10, output
    # Shorten what is left: the number of steps decides nothing before the last one.
    config = (tmp_path / "run" / "config.toml").read_text().replace("steps = 2000", f"steps = {stopped + 13}")
    (tmp_path / "run" / "config.toml").write_text(config)
    resumed = finish([*job, *python(), COMMAND, "train", "--resume", "--out", tmp_path / "run"], os.environ)
    assert folder.complete, resumed.stdout[-4000:]
    alone(tmp_path / "alone", "--evaluate-every", "4", "--steps", str(stopped + 13))
    assert contents(tmp_path / "run") == contents(tmp_path / "alone")
    assert folder.environment["ranks"] == 2


def test_divided_data_give_the_same_numbers_on_ranks_and_too_few_end_all_of_them(environment, tmp_path):
    divided = ["--partition", "gamma:0.3", "--rule", "majority-vote", "--set", "redundancy.r=3"]
    run = [*TRAIN, *RUN.split(), "--workers", "6", *divided, "--attack", "sign-flip"]
    launcher.run_ranks(2, [*run, "--out", str(tmp_path / "ranks"), "--events"], Silent())
    alone(tmp_path / "alone", "--workers", "6", *divided, "--attack", "sign-flip")
    assert contents(tmp_path / "ranks") == contents(tmp_path / "alone")
    skews = {RunFolder(tmp_path / name).environment["label_skew"] for name in ("ranks", "alone")}
    assert len(skews) == 1
    few = [*TRAIN, *RUN.split(), "--partition", "extreme", "--set", "data.train_limit=5"]
    with pytest.raises(launcher.LaunchError, match="5 samples leave some of 7 workers without data") as error:
        launcher.run_ranks(2, [*few, "--out", str(tmp_path / "few"), "--events"], Silent())
    assert error.value.code == 2


def test_the_launcher_shows_the_progress_of_its_ranks(environment, tmp_path):
    class Recorder(Silent):
        def __init__(self):
            self.notes, self.last = [], 0

        def update(self, step, values):
            self.last = step

        def note(self, text):
            self.notes.append(text)

    recorder = Recorder()
    launcher.run_ranks(2, [*TRAIN, *RUN.split(), "--out", str(tmp_path / "run"), "--events"], recorder)
    assert recorder.last == 60
    assert recorder.notes[-1].endswith(f"the run is in {tmp_path / 'run'}")
    with pytest.raises(launcher.LaunchError, match="already holds a run"):
        launcher.run_ranks(2, [*TRAIN, *RUN.split(), "--out", str(tmp_path / "run"), "--events"], recorder)
    alone(tmp_path / "alone")
    assert contents(tmp_path / "run") == contents(tmp_path / "alone")
