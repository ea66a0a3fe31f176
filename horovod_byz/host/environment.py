"""The versions, commit and hardware of a run, for the file beside its result."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

__all__ = ["describe"]

_PACKAGES = ("horovod-byz", "torch", "numpy", "horovod", "mpi4py", "torchvision", "scikit-learn")


def describe() -> dict[str, Any]:
    """Versions, commit and processor; no names of machines, users or folders."""
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "commit": _commit(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "torch_simd": torch.backends.cpu.get_cpu_capability(),
        **_gpu(),
    }


def _gpu() -> dict[str, Any]:
    """The GPU and what decides the bits of its results; nothing where this process uses none."""
    if not torch.cuda.is_initialized():
        return {}
    backends = torch.backends
    return {
        "gpu": torch.cuda.get_device_name(),
        "cuda": torch.version.cuda,
        "cudnn": backends.cudnn.version(),
        "tf32": {"convolutions": backends.cudnn.allow_tf32, "products": backends.cuda.matmul.allow_tf32},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the checkout around this package, with "+changes" if it was edited.

    Elsewhere HOROVOD_BYZ_COMMIT, for a copy of a checkout on a machine without git; else None.
    """
    package = Path(__file__).resolve().parents[1]
    if not (package.parent / ".git").exists():
        return os.environ.get("HOROVOD_BYZ_COMMIT")

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        # Only these folders: new files in results/ or docs/ cannot change a number.
        changed = git(
            "status", "--porcelain", "--untracked-files=no", "--", "horovod_byz", "kernels", "launch"
        )
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
