"""What stands in for Horovod's `join`, beside a fake Horovod; the ranks' tests have the real one."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from horovod_byz.collect import JoinedRanksError, header, joining
from horovod_byz.collect.header import JOINED, Header

SOURCE = """
calls = []

def join(device=-1):
    calls.append(device)
    return 5
"""


@pytest.fixture
def horovod(monkeypatch):
    """A module with a `join` of two names, as Horovod's `mpi_ops`."""
    module = types.ModuleType("horovod.torch.mpi_ops")
    exec(SOURCE, vars(module))
    module.early = module.join
    monkeypatch.setitem(sys.modules, "horovod.torch.mpi_ops", module)
    monkeypatch.setattr(joining, "_watched", [])
    monkeypatch.setattr(joining, "_original", None)
    monkeypatch.setattr(joining, "initialized", lambda: True)
    return module


class Others:
    """The other ranks' headers, and this rank's first."""

    def __init__(self, *headers):
        self.rank, self.size, self.begun, self.watchdog = 0, 1 + len(headers), [], self
        self.headers = [h.pack() for h in headers]

    def begin(self, step):
        self.begun.append(step)

    def exchange(self, message, phase):
        assert phase == "header exchange"
        return np.stack([message, *self.headers])


class Owner:
    """What binds later."""


def joined(step=3):
    return Header(step, 0, 0, "", JOINED)


STEPS = Header(3, 10, 1, "float32", "root")


@pytest.fixture
def owner(horovod):
    watched = Owner()
    joining.watch(watched)
    joining.watch(watched)  # installed once
    return watched


def among(monkeypatch, *headers):
    ranks = Others(*headers)
    monkeypatch.setattr(joining, "_next_exchange", lambda owners: (ranks, 7))
    return ranks


@pytest.mark.parametrize("name", ["join", "early"])
def test_all_that_join_reach_horovods_own(horovod, owner, monkeypatch, name):
    ranks = among(monkeypatch, joined(), joined())
    assert getattr(horovod, name)(2) == 5
    assert getattr(horovod, name)() == 5
    assert (horovod.calls, ranks.begun) == ([2, -1], [7, 7])


@pytest.mark.parametrize("name", ["join", "early"])
def test_a_rank_that_goes_on_ends_it(horovod, owner, monkeypatch, name):
    among(monkeypatch, STEPS, joined())
    with pytest.raises(
        JoinedRanksError, match=r"ranks 0 and 2 called hvd.join\(\) while rank 1 went on"
    ) as error:
        getattr(horovod, name)()
    assert error.value.ranks == (0, 2)
    assert horovod.calls == []


def test_the_ranks_that_go_on_get_this_error_before_any_other():
    with pytest.raises(JoinedRanksError, match="drop_last=True") as error:
        header.check_joined([STEPS, joined(99)])
    assert error.value.ranks == (1,)


def test_horovod_is_left_alone_once_its_user_is_gone(horovod, monkeypatch):
    among(monkeypatch, STEPS)
    user = Owner()
    user.itself = user
    joining.watch(user)
    del user
    assert horovod.join() == 5


def test_horovod_is_left_alone_before_it_is_initialised(horovod, owner, monkeypatch):
    among(monkeypatch, STEPS)
    monkeypatch.setattr(joining, "initialized", lambda: False)
    assert horovod.join() == 5
