"""The jobs of the step benchmark: how ranks are started, and how quiet the machine is before they are."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from horovod_byz.bench.step_rank import busy
from horovod_byz.host.environment import describe
from horovod_byz.kernels import dispatch

__all__ = ["QUIET", "Job", "load", "start"]

# Cores that others may use; more distorts the times of a job that uses all.
QUIET = 0.2
_HORUN = "import sys; from horovod.runner.launch import run_commandline as run; sys.exit(run())"
_LAUNCHERS = {
    "gloo": [sys.executable, "-c", _HORUN, "--gloo"],
    # Open MPI 5 does not read the single dashes of the options that horovodrun passes by itself.
    "mpi": [
        *(sys.executable, "-c", _HORUN, "--mpi"),
        "--binding-args=--bind-to none --map-by slot:oversubscribe",
        "--mpi-args=-mca mpi_yield_when_idle 1",
    ],
    "torch": [sys.executable, "-m", "torch.distributed.run", "--standalone"],
}


@dataclass(frozen=True)
class Job:
    """One job of ranks; all variants take turns in it.

    Args:
        backend: "gloo" or "mpi", under Horovod; or "torch": torch.distributed on Gloo.
        ranks: how many.
        model: a name in `step_models.MODELS`.
        network: "loopback", or the rate of emulated hosts, such as "1gbit".
        rounds: counted rounds.
        every: all rules by all ways to collect.
    """

    backend: str = "gloo"
    ranks: int = 4
    model: str = "large"
    network: str = "loopback"
    rounds: int = 7
    every: bool = False

    def command(self, file: Path, hosts: Sequence[str] = ()) -> list[str]:
        """What starts the ranks.

        Args:
            file: where rank 0 writes the result.
            hosts: the addresses of other hosts, one rank on each.
        """
        threads = max(1, (os.cpu_count() or 1) // self.ranks)
        given = json.dumps({**asdict(self), "threads": threads})
        program = ["-m", "horovod_byz.bench", "step-rank", str(file), given]
        if self.backend == "torch":
            return [*_LAUNCHERS["torch"], "--nproc-per-node", str(self.ranks), *program]
        where = ["-np", str(self.ranks)]
        if hosts:
            where += ["-H", ",".join(f"{host}:1" for host in hosts), "--network-interface", "eth0"]
        return [*_LAUNCHERS[self.backend], *where, sys.executable, *program]


def load(seconds: float = 1.0) -> dict[str, Any]:
    """The load averages, and how many cores processes use now."""
    before, began = busy(), time.perf_counter()
    time.sleep(seconds)
    used = (busy() - before) / (time.perf_counter() - began)
    return {"average": [round(value, 2) for value in os.getloadavg()], "cores": round(used, 2)}


def start(
    job: Job,
    limit: float = 3600.0,
    *,
    prefix: Sequence[str] = (),
    hosts: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Runs a job; returns what rank 0 measured, with the machine and its load before and after.

    Args:
        job: the job.
        limit: seconds after which it is ended.
        prefix: what runs the launcher on another host.
        hosts: as for `Job.command`.
        env: the launcher's environment; default this process's.

    Raises:
        RuntimeError: if the job fails or takes too long; with the end of what it printed.
    """
    before = load()
    with tempfile.TemporaryDirectory() as folder:
        file, printed = Path(folder, "result.json"), Path(folder, "printed")
        command = [*prefix, *job.command(file, hosts)]
        with printed.open("w") as output:
            process = subprocess.Popen(
                command,
                env=_environment(os.environ if env is None else env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            code = _ended(process, limit)
        if code != 0 or not file.exists():
            why = f"did not end in {limit:g} s" if code is None else f"ended with exit code {code}"
            raise RuntimeError(f"{job} {why}; the end of what it printed:\n{printed.read_text()[-3000:]}")
        result: dict[str, Any] = json.loads(file.read_text())
    result["load"] = {"before": before, "after": [round(value, 2) for value in os.getloadavg()]}
    result["machine"] = {**describe(), "level": dispatch.level()}
    return result


def _environment(given: Mapping[str, str]) -> dict[str, str]:
    beside = Path(sys.executable).parent  # mpirun, where it came as a wheel
    own = {"OMP_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return {**given, **own, "PATH": f"{given.get('PATH', '')}{os.pathsep}{beside}"}


def _ended(process: subprocess.Popen[bytes], limit: float) -> int | None:
    """The exit code; None where the job had to be ended. Launchers end their ranks at SIGTERM."""
    code = None
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        pass
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL) if process.poll() is None else ():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
    return code
