"""Which device a rank computes its gradients on."""

from __future__ import annotations

import torch

__all__ = ["find"]


def find(name: str, local_rank: int = 0) -> str:
    """The torch device of that name, known to be usable.

    Args:
        name: "cpu", "cuda" or such as "cuda:1". "cuda" gives each rank of a host a GPU of its own, in turn
            where there are fewer GPUs than ranks.
        local_rank: this rank's number among those on its host.

    Returns:
        Such as "cpu" or "cuda:1".

    Raises:
        ValueError: if it is no device, or torch cannot use it.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu, cuda or such as cuda:1, got {name!r}")
    if device.type == "cpu":
        return "cpu"
    count = torch.cuda.device_count()
    if count == 0:
        build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPUs only"
        raise ValueError(
            f"device {name!r} cannot be used: torch {torch.__version__} is built for {build} and finds no "
            "GPU; use cpu, or see what `nvidia-smi` and `horovod-byz doctor` say"
        )
    if device.index is not None and device.index >= count:
        raise ValueError(
            f"device {name!r} is not there: this host has {count} GPUs, cuda:0 to cuda:{count - 1}"
        )
    return f"cuda:{local_rank % count if device.index is None else device.index}"
