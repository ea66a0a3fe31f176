"""A process that a launcher started as one of several ranks does not train alone without a word.

Version 0.1.0: under torchrun, srun or mpirun without hvd.init() every rank trained alone and the models
drifted apart. Cause: three variables were looked at, and none of them of torchrun or Slurm.
"""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch

import horovod_byz as hb
from horovod_byz.collect import bind, process, transport
from horovod_byz.collect.local import Local
from horovod_byz.host import launchers
from horovod_byz.host.launchers import launched
from horovod_byz.training.ranks import Ranks

TORCHRUN = {"WORLD_SIZE": "4", "RANK": "1", "LOCAL_RANK": "1", "TORCHELASTIC_RUN_ID": "none"}
SRUN = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_NTASKS": "4"}
BATCH_SCRIPT = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}
LAUNCHED = [
    ({"HOROVOD_SIZE": "4"}, "horovodrun", "HOROVOD_SIZE"),
    ({"OMPI_COMM_WORLD_SIZE": "4"}, "mpirun", "OMPI_COMM_WORLD_SIZE"),
    ({"MV2_COMM_WORLD_SIZE": "4"}, "mpirun", "MV2_COMM_WORLD_SIZE"),
    ({"PMI_SIZE": "4"}, "mpirun", "PMI_SIZE"),
    ({"JSM_NAMESPACE_SIZE": "4"}, "jsrun", "JSM_NAMESPACE_SIZE"),
    (TORCHRUN, "torchrun", "WORLD_SIZE"),
    (SRUN, "srun", "SLURM_NTASKS"),
    ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, "srun", "SLURM_NTASKS"),
]
NOT_LAUNCHED = [
    {},
    BATCH_SCRIPT,
    {**BATCH_SCRIPT, "SLURM_STEP_ID": "4294967291"},  # Slurm's number for the batch script
    {**SRUN, "SLURM_NTASKS": "1"},
    {**TORCHRUN, "WORLD_SIZE": "1"},
    {"HOROVOD_SIZE": "1", **TORCHRUN},
    *(
        {name: text}
        for name in ("WORLD_SIZE", "HOROVOD_SIZE")
        for text in ("", "four", "-4", "4.0", "1e9", "\u0664", "9" * 99)
    ),
    {"SLURM_NTASKS": "4(x2)"},
]


@pytest.fixture
def environment(monkeypatch):
    """Sets the variables of a launcher, and no others."""

    def put(variables):
        for name in [*launchers._OTHERS, *launchers._OWN, "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_NTASKS"]:
            monkeypatch.delenv(name, raising=False)
        for name, text in variables.items():
            monkeypatch.setenv(name, text)

    return put


@pytest.mark.parametrize(("variables", "launcher", "variable"), LAUNCHED, ids=lambda x: str(x)[:30])
def test_each_launcher_is_refused_by_name_where_horovod_is_not_initialised(
    environment, variables, launcher, variable
):
    environment(variables)
    with pytest.raises(
        RuntimeError, match=rf"one of 4 ranks.*{launcher}.*\({variable}=4\).*hvd.init"
    ) as error:
        bind("root", 10, np.float32)
    assert f"unset {variable}" in str(error.value)
    net = torch.nn.Linear(2, 2)
    with pytest.raises(RuntimeError, match=rf"{variable}=4"):
        hb.DistributedOptimizer(torch.optim.SGD(net.parameters(), 0.1), net.named_parameters()).step()


@pytest.mark.parametrize("variables", NOT_LAUNCHED, ids=str)
def test_variables_that_mean_one_rank(environment, variables):
    environment(variables)
    assert launched().size == 1
    assert bind("root", 10, np.float32).n == 1


class Alone(Local):
    """Horovod's transport in a process where Horovod knows one rank."""


@pytest.mark.parametrize("variables", [TORCHRUN, SRUN, {"OMPI_COMM_WORLD_SIZE": "4"}], ids=str)
def test_a_horovod_that_sees_one_rank_of_several_is_refused(environment, monkeypatch, variables):
    """hvd.init() under torchrun gives every process a Horovod of one rank."""
    monkeypatch.setattr(process, "initialized", lambda: True)
    monkeypatch.setattr(transport, "with_horovod", lambda name, timeout: Alone())
    environment(variables)
    with pytest.raises(RuntimeError, match=r"one of 4 ranks.*Horovod sees this rank only.*horovodrun -np 4"):
        bind("root", 10, np.float32)
    for own in ("HOROVOD_SIZE", "HOROVOD_ELASTIC"):  # horovodrun -np 1 inside such a job; elastic on one rank
        environment({**variables, own: "1"})
        assert bind("root", 10, np.float32).n == 1


def test_the_trainer_refuses_too(environment, monkeypatch):
    monkeypatch.setattr(process, "initialized", lambda: True)
    monkeypatch.setattr(transport, "with_horovod", lambda name, timeout: Alone())
    torch_side = types.SimpleNamespace(is_initialized=lambda: True)
    monkeypatch.setitem(sys.modules, "horovod", types.SimpleNamespace(torch=torch_side))
    monkeypatch.setitem(sys.modules, "horovod.torch", torch_side)
    environment(TORCHRUN)
    with pytest.raises(RuntimeError, match="WORLD_SIZE=4"):
        Ranks()


def test_ranks_of_this_host_are_counted_by_any_launcher():
    """The doctor had a list of its own, which knew two launchers."""
    assert launchers.local_size({}) == 1
    assert launchers.local_size({"HOROVOD_LOCAL_SIZE": "2", "LOCAL_WORLD_SIZE": "4"}) == 2
    assert launchers.local_size({"LOCAL_WORLD_SIZE": "4"}) == 4
    assert launchers.local_size({"MPI_LOCALNRANKS": "3"}) == 3
    assert launchers.local_size({"HOROVOD_LOCAL_SIZE": "many"}) == 1
