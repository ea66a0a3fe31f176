"""What must be equal on two hosts for replicas of one gradient to agree bit for bit, and who differs."""

from __future__ import annotations

import platform
import warnings
from collections import Counter
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

# What a rank sends of its fingerprint; a fixed size, so that nobody can shift what others send.
_SIZE = 512


class Transport(Protocol):
    """What `compare` needs of the ranks, such as a `collect.transport.Transport`."""

    @property
    def size(self) -> int: ...

    def exchange(self, message: npt.NDArray[np.uint8], phase: str) -> npt.NDArray[np.uint8]: ...


def fingerprint() -> str:
    """What decides the bits that torch computes here, as one line: "torch 2.4.0+cpu; 1 thread; AVX2; ...".

    The number of threads changes the order of sums in convolutions and reductions; the instruction set and
    the libraries choose other kernels; so does another GPU, or a choice that is left to a benchmark. Equal
    fingerprints are necessary, and in the tests sufficient, for equal bits; seeds and data come on top.
    """
    import torch

    threads = torch.get_num_threads()
    parts = [
        f"torch {torch.__version__}",
        platform.machine(),
        f"{threads} thread{'s' * (threads != 1)}",
        torch.backends.cpu.get_cpu_capability(),
        f"oneDNN {'on' if torch.backends.mkldnn.enabled else 'off'}",
        f"deterministic {'on' if torch.are_deterministic_algorithms_enabled() else 'off'}",
        f"default dtype {torch.get_default_dtype()}".replace("torch.", ""),
    ]
    if torch.cuda.is_available():
        backend = torch.backends.cudnn
        parts += [
            torch.cuda.get_device_name(),
            f"cuDNN {backend.version()}",
            f"cuDNN benchmark {'on' if backend.benchmark else 'off'}",
            f"TF32 {'on' if torch.backends.cuda.matmul.allow_tf32 else 'off'}",
        ]
    return "; ".join(parts)


def needs_equal_bits(rule: Any) -> bool:
    """Whether a rule compares replicas of one gradient bit for bit."""
    redundancy = getattr(rule, "redundancy", None)
    tolerance = getattr(getattr(rule, "vote", None), "tolerance", 0.0)
    return redundancy is not None and redundancy.r > 1 and tolerance == 0.0


def compare(transport: Transport, rule: Any) -> None:
    """Warns if the torch build or settings of ranks whose replicas must agree differ. All ranks call it.

    One exchange of 512 bytes; none where the rule does not compare bits. A warning, no error: bits may agree
    all the same, and where they do not, the vote says so at every step.
    """
    if transport.size < 2 or not needs_equal_bits(rule):
        return
    own = np.zeros(_SIZE, np.uint8)
    text = fingerprint().encode("ascii", "replace")[:_SIZE]
    own[: len(text)] = np.frombuffer(text, np.uint8)
    received = transport.exchange(own, "comparison of the ranks' torch")
    told = [row.tobytes().rstrip(b"\0").decode("ascii", "replace") for row in received]
    usual = Counter(told).most_common(1)[0][0]
    odd = [rank for rank, line in enumerate(told) if line != usual]
    if odd:
        warnings.warn(
            f"replicas are compared bit for bit, and rank {odd[0]} ({told[odd[0]]}) computes by other means "
            f"than most ({usual}); so do {len(odd)} in all: {odd}. Make them equal, such as OMP_NUM_THREADS, "
            "or vote with a tolerance: Detox(..., vote=MajorityVote(tolerance=1e-4))",
            stacklevel=3,
        )
