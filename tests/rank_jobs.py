"""What tests that start Horovod jobs share: the launcher, the ranks' environment, one job at a time."""

from __future__ import annotations

import fcntl
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import contextmanager

import pytest

import leftovers

LIMIT = 300.0  # seconds that a job may take
PATIENCE = 700.0  # seconds to wait for the jobs of other tests on this machine
JOB = "HOROVOD_BYZ_JOB"  # in the environment of every process of a job, whatever its session

# Not the horovodrun on PATH: the tests' interpreter has the packages under test.
HOROVODRUN = [
    sys.executable,
    "-c",
    "import sys; from horovod.runner.launch import run_commandline as run; sys.exit(run())",
]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
# Open MPI 5 does not read the single-dash options that horovodrun passes; ranks outnumber cores here.
BACKENDS = {
    "gloo": ["--gloo"],
    "mpi": [
        "--mpi",
        "--binding-args=--bind-to none --map-by slot:oversubscribe",
        "--mpi-args=-mca mpi_yield_when_idle 1",
    ],
}


def need_horovod():
    """Skips where Horovod is not installed."""
    pytest.importorskip("horovod.torch", reason="Horovod is not installed", exc_type=ImportError)


def built(backend):
    """Whether Horovod was built with "gloo" or "mpi"."""
    import horovod.torch as hvd

    return bool(hvd.mpi_built() if backend == "mpi" else hvd.gloo_built())


def jobs(*params):
    """The fixture `job` of a module: its tests run once for each of these (number of ranks, backend)."""

    @pytest.fixture(params=params, ids=lambda job: f"{job[0]}-{job[1]}", scope="module")
    def job(request):
        return request.param

    return job


def environment():
    """Variables with which ranks import the package that is tested, and find mpirun if it came as a wheel."""
    return {
        "OMP_NUM_THREADS": "1",
        # With Horovod's 30 s, hvd.init aborts beside a load in the ranks that were started first.
        "HOROVOD_GLOO_TIMEOUT_SECONDS": "120",
        "PYTHONFAULTHANDLER": "1",  # a rank that is ended writes its stacks
        "PATH": f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }


@contextmanager
def one_at_a_time():
    """Inside, no other test on this machine starts ranks, also when tests run in parallel."""
    with pathlib.Path(tempfile.gettempdir(), "horovod_byz_tests.lock").open("a+") as lock:
        deadline = time.monotonic() + PATIENCE
        while not _locked(lock):
            if time.monotonic() > deadline:
                lock.seek(0)
                pytest.fail(f"no ranks for {PATIENCE:g} s, since another test has {lock.name}: {lock.read()}")
            time.sleep(0.05)
        lock.truncate(0)
        print(f"process {os.getpid()}, {os.environ.get('PYTEST_CURRENT_TEST')}", file=lock, flush=True)
        try:
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)  # closing is not enough where a forked process has it open too


def _locked(lock) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Job:
    """A command and all that it starts; inside a `with` block, at whose end nothing of it is left.

    What it prints goes to a file: a pipe would stay open, and its reader wait, as long as any process of the
    job lives.

    Args:
        command: what to start, in a session of its own.
        env: its environment.
        limit: seconds from now on after which `wait` and `lines` end the job, with the stacks of its threads.

    Attributes:
        name: what `JOB` is set to in the environment of all its processes.
    """

    def __init__(self, command, env, limit=LIMIT):
        self.limit, self._deadline = limit, time.monotonic() + limit
        self.name, self._output = uuid.uuid4().hex, tempfile.NamedTemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            env={**env, JOB: self.name},
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.end()
        self._output.close()

    @property
    def printed(self):
        """What the job has printed so far, both streams."""
        return pathlib.Path(self._output.name).read_text(errors="replace")

    def wait(self):
        """Waits for the command; returns its exit code, or None when it had to be ended."""
        try:
            code = self.process.wait(timeout=max(0.0, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.end()
            code = None
        return code

    def lines(self):
        """What the job prints, line by line, until it ends."""
        with open(self._output.name) as printed:  # noqa: PTH123
            line = ""
            while True:
                ended = self.process.poll() is not None or time.monotonic() > self._deadline
                while more := printed.readline():
                    line += more
                    if line.endswith("\n"):
                        yield line
                        line = ""
                if ended:
                    if line:
                        yield line
                    self.wait()
                    return
                time.sleep(0.02)

    def end(self):
        """Ends whatever of the job still runs; its Python processes print their stacks first."""
        leftovers.end(leftovers.with_value(JOB, self.name))
        self.process.wait(timeout=10)


def finish(command, env, limit=LIMIT):
    """Runs a job to its end; returns its exit code and what it printed, both streams in `stdout`."""
    with Job(command, env, limit) as job:
        code = job.wait()
        late = f"no end after {limit:g} s; what its threads did stands below\n" if code is None else ""
        return subprocess.CompletedProcess(command, code, late + job.printed)


def trained_here(*options):
    """Runs `horovod-byz train` in this process, which spares the seconds that a process takes to start."""
    from typer.testing import CliRunner

    from horovod_byz.cli.main import app

    done = CliRunner().invoke(app, ["train", *map(str, options)])
    assert done.exit_code == 0, (done.output, done.exception)
