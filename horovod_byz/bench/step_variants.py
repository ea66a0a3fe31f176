"""What the step benchmark compares: the framework's own optimizer, and rules by ways to collect."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch

import horovod_byz as hb
from horovod_byz.bench.step_models import Model
from horovod_byz.bench.ways import largest_f

__all__ = ["ALONE", "PARTS", "Training", "Variant", "baseline", "gradients", "variants"]

# One rank's step without communication: the least memory and time of any.
ALONE = "no communication"
# Seconds of a step: the whole; forward and backward; the session's three parts; what surrounds them
# (gradients into the row and back, the ledger; for others all of synchronize()); and the wrapped optimizer's
# step.
PARTS = ("step", "compute", "collect", "aggregate", "return", "around", "apply")
_SESSION = ("collect", "aggregate", "return")
_MAIN = (
    *(("Mean", way) for way in ("sharded", "symmetric")),
    *(("Median", way) for way in ("sharded", "root", "symmetric")),
    *((rule, "sharded") for rule in ("MultiKrum", "GeometricMedian", "Detox")),
)


@dataclass(frozen=True)
class Variant:
    """One way to take a step.

    Args:
        name: in the tables.
        rule: the aggregation rule; None for an optimizer that is not ours.
        collect: the way to collect; None likewise.
    """

    name: str
    rule: Any = None
    collect: Any = None

    def batch_of(self, rank: int, size: int) -> int:
        """The number of a rank's batch: replicas compute the same one."""
        if isinstance(self.rule, hb.MajorityVote):
            return 0
        redundancy = getattr(self.rule, "redundancy", None)
        if redundancy is None:
            return rank
        groups = redundancy.groups_of(size)
        return next(number for number, group in enumerate(groups) if rank in group)


def baseline(backend: str) -> Variant:
    """The optimizer that the others are compared with."""
    return Variant("DDP" if backend == "torch" else "Horovod")


def variants(size: int, every: bool = False) -> list[Variant]:
    """Ours, for a number of ranks; without rules that do not hold for so few.

    Args:
        size: number of ranks.
        every: each rule by each way to collect; otherwise the main ones.
    """
    rules: dict[str, Any] = {
        "Mean": hb.Mean(),
        "Median": hb.Median(),
        "TrimmedMean": largest_f(hb.TrimmedMean, size),
        "MeanAroundMedian": largest_f(hb.MeanAroundMedian, size),
        "MultiKrum": largest_f(hb.MultiKrum, size),
        "GeometricMedian": hb.GeometricMedian(),
        "MajorityVote": hb.MajorityVote(),
        "Detox": hb.Detox(hb.Redundancy(r=min(3, size)), hb.Mean(), hb.Median()),
    }
    pairs = _MAIN
    if every:
        pairs = tuple((rule, way) for rule in rules for way in ("sharded", "root", "symmetric"))
    made = [Variant(f"{rule}, {way}", rules[rule], way) for rule, way in pairs if rules[rule] is not None]
    for rule in ("Median", "MultiKrum"):
        if rules[rule] is not None:
            made.append(Variant(f"{rule}, sharded:overlap=true", rules[rule], hb.Sharded(overlap=True)))
    if size >= 3:
        made.append(Variant("Median, sharded:replicas=3", hb.Median(), hb.Sharded(replicas=3)))
    return made


class Training:
    """A model that one variant trains.

    Args:
        variant: the variant.
        model: what it trains.
        batch: this rank's batch.
    """

    def __init__(self, variant: Variant, model: Model, batch: torch.Tensor) -> None:
        self.variant, self._batch = variant, batch
        self._net: Any = model.build()
        inner = torch.optim.SGD(self._net.parameters(), lr=0.01)
        self._optimizer: Any = inner
        if variant.rule is not None:
            named = list(self._net.named_parameters())
            self._optimizer = hb.DistributedOptimizer(
                inner, named, rule=variant.rule, collect=variant.collect
            )
        elif variant.name == "Horovod":
            import horovod.torch as hvd

            self._optimizer = hvd.DistributedOptimizer(inner, self._net.named_parameters())
        elif variant.name == "DDP":
            self._net = torch.nn.parallel.DistributedDataParallel(self._net)
        self._parameters = list(self._net.parameters())
        self._synchronize: Callable[[], Any] | None = getattr(self._optimizer, "synchronize", None)

    def step(self) -> list[float]:
        """A training step; the seconds of `PARTS`."""
        begin = perf_counter()
        self._optimizer.zero_grad()
        self._net(self._batch).square().mean().backward()
        computed = perf_counter()
        inside = [0.0, 0.0, 0.0]
        if self._synchronize is not None:
            collected = self._synchronize()
            if self.variant.rule is not None:
                inside = [collected.timings.get(part, 0.0) for part in _SESSION]
        together = perf_counter()
        with nullcontext() if self._synchronize is None else self._optimizer.skip_synchronize():
            self._optimizer.step()
        end = perf_counter()
        around = together - computed - sum(inside)
        return [end - begin, computed - begin, *inside, around, end - together]

    def prepare(self, gradients: list[torch.Tensor]) -> None:
        """Sets gradients, for `communicate`."""
        self._optimizer.zero_grad()
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient.clone()

    def communicate(self) -> float | None:
        """Seconds of synchronize() alone; None where communication is part of the backward pass."""
        if self._synchronize is None:
            return None
        begin = perf_counter()
        self._synchronize()
        return perf_counter() - begin


def gradients(model: Model, batch: torch.Tensor) -> list[torch.Tensor]:
    """The gradients of a batch at the first step; equal wherever the batch is."""
    net = model.build()
    net(batch).square().mean().backward()
    return [parameter.grad for parameter in net.parameters() if parameter.grad is not None]
