"""Ranks that are forked instead of started must not differ from ranks that were started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing

import pytest

import leftovers
from forks import Forks

PROGRAM = """
import atexit, json, os, random, sys, tempfile, time
import numpy as np

seen = {
    "words": sys.argv[1:],
    "path": sys.path[:2],
    "name": __name__,
    "folder": os.getcwd(),
    "variable": os.environ.get("OF_THE_LAUNCHER"),
    "environment": len(os.environ),
    "temporary": tempfile.gettempdir(),
    "descriptors": sorted(map(int, os.listdir("/proc/self/fd")))[:-1],
    "draws": [random.random(), np.random.rand()],
}
atexit.register(print, "at the end", file=sys.stderr)
print(json.dumps(seen))
exec(sys.argv[1])
print(os.getpid(), flush=True)
exec("".join(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def forks(tmp_path_factory):
    with closing(
        Forks(os.environ, tmp_path_factory.mktemp("forks"), modules=("tempfile", "random"))
    ) as forks:
        yield forks


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "programs" / "program.py"
    path.parent.mkdir()
    path.write_text(PROGRAM)
    return path


@pytest.fixture
def ends(forks, program, tmp_path):
    """`ends(python, code)`: how a program ends that runs this code."""
    env = {
        **os.environ,
        "OF_THE_LAUNCHER": "1",
        "PYTHONPATH": str(tmp_path / "modules"),
        "TMPDIR": str(tmp_path),
    }

    def run(python, code):
        command = [*python, program, code]
        return subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    return run


def begun(forks, program, code, first="pass"):
    """A program that runs `code`, and did `first` before; and the number of its process."""
    job = subprocess.Popen([*forks.command, program, first, code], stdout=subprocess.PIPE, text=True)
    job.stdout.readline()
    return job, int(job.stdout.readline())


def ended(process):
    deadline = time.monotonic() + 20
    while leftovers.identity(process) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not leftovers.identity(process)


def test_a_fork_sees_what_a_process_of_its_own_sees(forks, ends):
    forked, started = (
        json.loads(ends(python, "pass").stdout.splitlines()[0])
        for python in (forks.command, [sys.executable])
    )
    assert forked.pop("draws") != started.pop("draws")
    assert forked == started


def test_two_forks_draw_different_numbers(forks, ends):
    first, second = (json.loads(ends(forks.command, "pass").stdout.splitlines()[0]) for _ in range(2))
    assert not set(first["draws"]) & set(second["draws"])


@pytest.mark.parametrize(
    "code",
    [
        "pass",
        "sys.exit(3)",
        "raise ArithmeticError('of this program')",
        "os._exit(4)",
        "os.kill(os.getpid(), 9)",
    ],
)
def test_it_ends_alike(forks, ends, code):
    forked, started = ends(forks.command, code), ends([sys.executable], code)
    assert forked.returncode == started.returncode
    for words in ("at the end", "Traceback", "ArithmeticError: of this program"):
        assert (words in forked.stderr) == (words in started.stderr), words


def test_a_signal_reaches_the_fork(forks, program):
    job, _ = begun(
        forks, program, "time.sleep(60)", "import signal; signal.signal(15, lambda *_: sys.exit(5))"
    )
    job.terminate()
    assert job.wait(timeout=20) == 5
    job, _ = begun(forks, program, "time.sleep(60)")
    job.terminate()
    assert job.wait(timeout=20) == -signal.SIGTERM


def test_a_fork_ends_with_who_asked_for_it(forks, program):
    job, process = begun(forks, program, "os.kill(os.getpid(), 19)")  # even a stopped one
    assert leftovers.identity(process)
    job.kill()
    job.wait(timeout=20)
    assert ended(process)


def test_nothing_stays_when_the_tests_end(tmp_path, program):
    with closing(Forks(os.environ, tmp_path, modules=())) as forks:
        job, process = begun(forks, program, "time.sleep(60)")
        # What ends the processes that a test left behind spares the one that forks.
        assert job.pid in leftovers.started()
        assert forks.process.pid not in leftovers.started()
    assert job.wait(timeout=20) != 0
    assert ended(process)
