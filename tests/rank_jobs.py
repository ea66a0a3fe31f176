"""What tests that start Horovod jobs share: the launcher, the ranks' environment, one job at a time."""

from __future__ import annotations

import fcntl
import os
import pathlib
import sys
import tempfile
from contextlib import contextmanager

import pytest

# Not the horovodrun on PATH: the tests' interpreter has the packages under test.
HOROVODRUN = [
    sys.executable,
    "-c",
    "import sys; from horovod.runner.launch import run_commandline as run; sys.exit(run())",
]
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


def environment():
    """Variables with which ranks import the package that is tested, and find mpirun if it came as a wheel."""
    return {
        "OMP_NUM_THREADS": "1",
        "PATH": f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }


@contextmanager
def one_at_a_time():
    """Inside, no other test on this machine starts ranks, also when tests run in parallel."""
    with pathlib.Path(tempfile.gettempdir(), "horovod_byz_tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
