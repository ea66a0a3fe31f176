"""Starts Horovod jobs for the tests, each once, and hands out what their ranks saw."""

from __future__ import annotations

import importlib
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import pytest

from emulated_hosts import Cluster
from rank_jobs import BACKENDS, HOROVODRUN, TORCHRUN, built, environment, finish, need_horovod, one_at_a_time

CHECKS = pathlib.Path(__file__).parent / "checks"

# The groups of checks that a launch runs, one after the other: to start ranks costs more than most checks.
# After failures, and all of late, leaving, exiting, giving up, shutting and crashing, nothing else can run.
LAUNCHES = {
    (2, "gloo"): ["optimizers modes resume steps leaving"],
    (4, "gloo"): ["optimizers modes dedicated joining policies journal failures", "late"],
    (3, "gloo"): ["dropin recipes states acceptance exiting", "giving_up", "shutting", "crashing"],
    (2, "mpi"): ["optimizers resume dropin recipes leaving"],
    (4, "mpi"): ["modes dedicated joining policies journal failures", "late"],
    (3, "mpi"): ["states exiting", "giving_up", "shutting"],
    (2, "torch"): ["modes steps"],
    (4, "torch"): ["modes dedicated failures torchrun late"],
}
LIMIT = 600.0  # seconds for a launch; `checks/run.py` has a limit for each check


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "checks(*groups): reads what ranks saw in groups of ranks/checks")


class Launch(NamedTuple):
    """A job that has ended."""

    ranks: list[dict]  # what each rank saw in each check; a check that did not end has no entry
    printed: str


@cache
def launch(size: int, backend: str, groups: tuple[str, ...], python: Callable[[], list[str]]) -> Launch:
    """Runs groups of checks on ranks, with no other job beside it, and ends all of it."""
    if backend == "torch":
        command = [*TORCHRUN, "--standalone", "--nproc-per-node", str(size), "--no-python"]
    else:
        command = [*HOROVODRUN, "-np", str(size), *BACKENDS[backend]]
    command += [*python(), str(CHECKS / "run.py"), *groups]
    with tempfile.TemporaryDirectory() as results, one_at_a_time():
        env = {**os.environ, **environment(), "RANK_RESULTS": results}
        printed = finish(command, env, LIMIT).stdout
        files = [pathlib.Path(results, f"{rank}.json") for rank in range(size)]
        return Launch([json.loads(file.read_text()) if file.exists() else {} for file in files], printed)


@pytest.fixture(scope="session")
def wanted(request):
    """The groups that the tests of this session read; a launch leaves the others out."""
    marks = [mark for item in request.session.items for mark in item.iter_markers("checks")]
    return {group for mark in marks for group in mark.args}


@pytest.fixture
def results(wanted, python):
    """`results(check, size, backend, group)`: what each rank saw in a check; fails on its errors."""

    def find(check: str, size: int, backend: str, group: str) -> list:
        if backend != "torch":
            need_horovod()
        if backend != "torch" and not built(backend):
            pytest.skip(f"Horovod was built without {backend}")
        (planned,) = [names for line in LAUNCHES[size, backend] if group in (names := line.split())]
        groups = tuple(name for name in planned if name in wanted)
        ended = launch(size, backend, groups, python)
        for rank, checks in enumerate(ended.ranks):
            if check not in checks:
                pytest.fail(f"rank {rank} did not end {check}:\n{ended.printed[-9000:]}")
            if isinstance(checks[check], dict) and set(checks[check]) == {"error"}:
                pytest.fail(f"rank {rank}, {check}:\n{checks[check]['error']}")
        return [checks[check] for checks in ended.ranks]

    return find


@pytest.fixture
def checked(results, job, request):
    """`checked(check)`: what each rank of the module's `job` saw in a check of the module's group."""
    (group,) = request.node.get_closest_marker("checks").args
    return lambda check: results(check, *job, group)


@pytest.fixture(scope="module")
def alone():
    """`alone(name)`: a module of the checks in this process, which is a job of one rank."""

    def load(name: str):
        sys.path.insert(0, str(CHECKS))
        try:
            return importlib.import_module(name)
        finally:
            sys.path.remove(str(CHECKS))

    return load


@pytest.fixture(scope="module")
def cluster():
    with Cluster(3) as hosts:
        yield hosts


@pytest.fixture
def ranks():
    """The environment of a job that the test itself starts; no other runs beside it."""
    need_horovod()
    with one_at_a_time():
        yield {**os.environ, **environment()}
