"""Detects from the environment whether a launcher started this process as one of several ranks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

# The largest step number that Slurm gives to srun; those above stand for the batch script and the like.
_LAST_SRUN_STEP = 0xFFFFFFF0 - 1

_HOROVOD = "HOROVOD_SIZE"
_TORCHRUN = "WORLD_SIZE"
# Launchers by variable; the error names the first with the largest number.
_OTHERS = {
    "OMPI_COMM_WORLD_SIZE": "mpirun (Open MPI)",
    "MV2_COMM_WORLD_SIZE": "mpirun (MVAPICH)",
    "PMI_SIZE": "mpirun (PMI)",
    "JSM_NAMESPACE_SIZE": "jsrun",
    _TORCHRUN: "torchrun, or another launcher for torch.distributed,",
}
# How many ranks there are on this host, by whichever launcher; the first that says so counts.
_LOCAL = (
    "HOROVOD_LOCAL_SIZE",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "MV2_COMM_WORLD_LOCAL_SIZE",
    "MPI_LOCALNRANKS",
    "LOCAL_WORLD_SIZE",
)
# Variables that Horovod's own launcher sets.
_OWN = (_HOROVOD, "HOROVOD_ELASTIC", "HOROVOD_GLOO_RENDEZVOUS_ADDR")


@dataclass(frozen=True)
class Launch:
    """The launcher of this process.

    Attributes:
        size: number of ranks; 1 without a launcher.
        launcher: name of the launcher.
        variable: the environment variable with the number.
    """

    size: int = 1
    launcher: str = ""
    variable: str = ""

    def __str__(self) -> str:
        return (
            f"this is one of {self.size} ranks, which {self.launcher} started ({self.variable}={self.size})"
        )


def launched(environment: Mapping[str, str] | None = None) -> Launch:
    """Returns the launcher of this process; unreadable numbers count as absent.

    `HOROVOD_SIZE` decides where it is set: horovodrun may run inside a job of another launcher. To run a
    single process inside such a job, unset the variable that names it.
    """
    env = os.environ if environment is None else environment
    own = _number(env, _HOROVOD)
    if own is not None:
        return Launch(own, "horovodrun", _HOROVOD)
    sizes = [Launch(_number(env, name) or 1, launcher, name) for name, launcher in _OTHERS.items()]
    return max([*sizes, _slurm(env)], key=lambda launch: launch.size)


def by_torchrun(environment: Mapping[str, str] | None = None) -> bool:
    """Whether torchrun, or a launcher that sets the same variables, started this process's ranks."""
    env = os.environ if environment is None else environment
    return launched(env).variable == _TORCHRUN and all(
        env.get(name) for name in ("RANK", "MASTER_ADDR", "MASTER_PORT")
    )


def local_size(environment: Mapping[str, str] | None = None) -> int:
    """How many ranks the job started on this host; 1 outside a job."""
    env = os.environ if environment is None else environment
    sizes = (_number(env, name) for name in _LOCAL)
    return next((size for size in sizes if size is not None), 1)


def refuse_uninitialized(launch: Launch) -> None:
    """Refuses to go on alone in a process where neither Horovod nor torch.distributed is initialised.

    Raises:
        RuntimeError: if it is one of several ranks.
    """
    if launch.size > 1:
        call = "hvd.init()"
        if launch.variable == _TORCHRUN:
            call = "torch.distributed.init_process_group() (or hvd.init(), under Horovod's launcher)"
        raise RuntimeError(
            f"{launch}, and it called no initialisation, so each rank would train alone: call {call} first"
            f"{_remedy(launch)}"
        )


def refuse_alone(launch: Launch, library: str = "Horovod") -> None:
    """Refuses to go on alone if the library has one rank although a launcher started more.

    Raises:
        RuntimeError: if a launcher, other than Horovod's own, started more ranks.
    """
    if launch.size > 1 and not any(os.environ.get(name) for name in _OWN):
        raise RuntimeError(
            f"{launch}, but {library} sees this rank only, so each rank would train alone{_remedy(launch)}"
        )


def _remedy(launch: Launch) -> str:
    alone = f"; to run a single process on purpose, unset {launch.variable}"
    if launch.variable == _HOROVOD:
        return alone
    if launch.variable == _TORCHRUN:
        return (
            "; under torchrun call torch.distributed.init_process_group() and not hvd.init(), or start the "
            f"ranks by horovodrun -np {launch.size}{alone}"
        )
    return (
        f"; start the ranks by horovodrun -np {launch.size}, or by mpirun with a Horovod that was built with "
        f"MPI{alone}"
    )


def _slurm(env: Mapping[str, str]) -> Launch:
    """The tasks of a Slurm step.

    The shells of sbatch and salloc have SLURM_NTASKS too, where one process runs: they have a job, but
    no step of srun.
    """
    step = _number(env, "SLURM_STEP_ID", least=0)
    if step is None:
        step = _number(env, "SLURM_STEPID", least=0)
    in_step = step is not None and step <= _LAST_SRUN_STEP
    if not in_step and any(env.get(name) for name in ("SLURM_JOB_ID", "SLURM_JOBID")):
        return Launch()
    # Under srun the number of the step's tasks, not of the job's. A single variable, so that unsetting it is
    # enough.
    return Launch(_number(env, "SLURM_NTASKS") or 1, "srun", "SLURM_NTASKS")


def _number(env: Mapping[str, str], name: str, least: int = 1) -> int | None:
    text = env.get(name, "").strip()
    if not (text.isascii() and text.isdigit()) or len(text) > 10:
        return None
    return int(text) if int(text) >= least else None
