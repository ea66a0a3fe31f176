"""Comparison of parameters, bit for bit."""

from collections.abc import Iterable

import torch


def same(a: Iterable[torch.Tensor], b: Iterable[torch.Tensor]) -> bool:
    """Whether two lists of tensors hold the same bits in the same order."""
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
