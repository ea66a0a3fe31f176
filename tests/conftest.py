"""Settings that every test shares."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import cache

# Set before torch or the kernels are imported: tests run side by side, so each keeps to one thread
# unless it asks for more.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Open MPI spins while it waits; with more ranks than cores that starves the rank that is waited for.
os.environ.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")

import pytest
from hypothesis import settings

import time_limit
from horovod_byz.kernels import dispatch

# Runs before the code of `interpreter`: makes top-level modules as absent as if they had not been installed.
HIDE = """
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {hidden!r} else PathFinder.find_spec(name, path, target)

sys.meta_path = [Without if finder is PathFinder else finder for finder in sys.meta_path]
"""

# These programs import more than they compute, which takes a quarter longer with the garbage collector.
GC = "import gc\ngc.disable()\n"

# Seconds for a test that starts ranks: its job's limit, and the wait for another job's end before it.
RANKS_LIMIT = 1400

settings.register_profile("default", deadline=None)
settings.load_profile("default")


def pytest_configure(config: pytest.Config) -> None:
    # A job that a shell starts in the background ignores Ctrl-C; the programs of the tests must not.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.pluginmanager.register(time_limit)


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in a hook of the same name
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps tests that start ranks in one pytest process: two jobs at once would starve each other."""
    for item in items:
        if item.get_closest_marker("horovod") or item.get_closest_marker("multihost"):
            item.add_marker(pytest.mark.xdist_group("ranks"))
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(RANKS_LIMIT))


@pytest.fixture(params=dispatch.levels())
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each test runs at every instruction set this machine has."""
    before = dispatch.level()
    dispatch.use(request.param)
    yield request.param
    dispatch.use(before)


@pytest.fixture(scope="session")
def python() -> Iterator[Callable[[], list[str]]]:
    """`python()`: words that start a rank like `python`, but with what ranks import already imported."""
    from forks import Forks
    from rank_jobs import environment

    with ExitStack() as ended:

        @cache
        def start() -> list[str]:
            folder = ended.enter_context(tempfile.TemporaryDirectory())
            return ended.enter_context(closing(Forks({**os.environ, **environment()}, folder))).command

        yield start


@pytest.fixture
def interpreter() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs code in a fresh interpreter: `interpreter(code, without=("horovod",)).stdout`."""

    def run(code: str, without: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        program = GC + (HIDE.format(hidden=without) if without else "") + textwrap.dedent(code)
        return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)

    return run


@pytest.fixture
def on_threads(monkeypatch):
    """Runs `work(transport)` on n ranks that are threads, whose optimizers are connected; what each gives."""
    from thread_ranks import on_ranks, succeeded

    here = threading.local()
    monkeypatch.setattr("horovod_byz.collect.transport.connect", lambda name, timeout: here.transport)

    def run(n, work):
        monkeypatch.setattr("horovod_byz.optimizer.distributed.ranks", lambda: (here.transport.rank, n))

        def start(transport):
            here.transport = transport
            return work(transport)

        return succeeded(on_ranks(n, start))

    return run
