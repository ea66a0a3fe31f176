"""Starts Horovod jobs for the tests, each once, and hands out what their ranks found."""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from functools import cache

import pytest

from emulated_hosts import Cluster

CHECKS = pathlib.Path(__file__).parent / "checks"
TIMEOUT = 900

# Open MPI 5 does not read the single-dash options that horovodrun passes; ranks outnumber cores here.
_MPI = [
    "--mpi",
    "--binding-args=--bind-to none --map-by slot:oversubscribe",
    "--mpi-args=-mca mpi_yield_when_idle 1",
]


# Not the horovodrun on PATH: the tests' interpreter has the packages under test.
_LAUNCHER = "import sys; from horovod.runner.launch import run_commandline as run; sys.exit(run())"


def built(backend: str) -> bool:
    import horovod.torch as hvd

    return bool(hvd.mpi_built() if backend == "mpi" else hvd.gloo_built())


@cache
def run(size: int, backend: str, *groups: str) -> list[dict] | str:
    """Runs groups of checks from `checks/` on `size` ranks.

    Returns:
        Each rank's results; or what was printed, if a rank left none.
    """
    command = [sys.executable, "-c", _LAUNCHER, "-np", str(size), *(_MPI if backend == "mpi" else ["--gloo"])]
    command += [sys.executable, str(CHECKS / "run.py"), *groups]
    folder = pathlib.Path(sys.executable).parent  # where mpirun is, if it came as a wheel
    with tempfile.TemporaryDirectory() as results:
        env = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', '')}",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "RANK_RESULTS": results,
        }
        printed = _alone(command, env)
        files = [pathlib.Path(results, f"{rank}.json") for rank in range(size)]
        if not all(file.exists() for file in files):
            return f"{size} ranks on {backend} left no results: {printed[-6000:]}"
        return [json.loads(file.read_text()) for file in files]


def _alone(command: list[str], env: dict[str, str]) -> str:
    """One job at a time on this machine, also when tests run in parallel; its whole process group ends."""
    with pathlib.Path(tempfile.gettempdir(), "horovod_byz_tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        job = subprocess.Popen(
            command,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            return job.communicate(timeout=TIMEOUT)[0]
        except subprocess.TimeoutExpired:
            os.killpg(job.pid, signal.SIGTERM)  # the launcher passes it on to ranks in other groups
            return f"no end after {TIMEOUT} s: {job.communicate()[0]}"


@pytest.fixture
def results():
    """`results(check, size, backend, group)`: what each rank found in one check; fails on its errors."""

    def find(check: str, size: int, backend: str, *groups: str) -> list:
        pytest.importorskip("horovod.torch", reason="Horovod is not installed", exc_type=ImportError)
        if not built(backend):
            pytest.skip(f"Horovod was built without {backend}")
        ranks = run(size, backend, *groups)
        if isinstance(ranks, str):
            pytest.fail(ranks)
        found = [rank[check] for rank in ranks]
        for rank, result in enumerate(found):
            if isinstance(result, dict) and set(result) == {"error"}:
                pytest.fail(f"rank {rank}, {check}:\n{result['error']}")
        return found

    return find


@pytest.fixture(scope="module")
def cluster():
    with Cluster(3) as found:
        yield found
