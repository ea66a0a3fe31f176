"""Starts Horovod jobs for the tests, each once, and hands out what their ranks found."""

from __future__ import annotations

import json
import os
import pathlib
import sys
import tempfile
from functools import cache

import pytest

from emulated_hosts import Cluster
from rank_jobs import BACKENDS, HOROVODRUN, built, environment, finish, need_horovod, one_at_a_time

CHECKS = pathlib.Path(__file__).parent / "checks"


@cache
def run(size: int, backend: str, *groups: str) -> list[dict] | str:
    """Runs groups of checks from `checks/` on `size` ranks.

    Returns:
        Each rank's results; or what was printed, if a rank left none.
    """
    command = [*HOROVODRUN, "-np", str(size), *BACKENDS[backend]]
    command += [sys.executable, str(CHECKS / "run.py"), *groups]
    with tempfile.TemporaryDirectory() as results:
        env = {**os.environ, **environment(), "RANK_RESULTS": results}
        printed = _alone(command, env)
        files = [pathlib.Path(results, f"{rank}.json") for rank in range(size)]
        if not all(file.exists() for file in files):
            return f"{size} ranks on {backend} left no results: {printed[-6000:]}"
        return [json.loads(file.read_text()) for file in files]


def _alone(command: list[str], env: dict[str, str]) -> str:
    """Runs a job with no other beside it, and ends all of it. Returns what it printed."""
    with one_at_a_time():
        return finish(command, env).stdout


@pytest.fixture
def results():
    """`results(check, size, backend, group)`: what each rank found in one check; fails on its errors."""

    def find(check: str, size: int, backend: str, *groups: str) -> list:
        need_horovod()
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


@pytest.fixture
def ranks():
    """The environment of a job that the test itself starts; no other runs beside it."""
    need_horovod()
    with one_at_a_time():
        yield {**os.environ, **environment()}
