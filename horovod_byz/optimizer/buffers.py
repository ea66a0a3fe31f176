"""Model buffers, such as the running statistics of BatchNorm, aggregated by a robust rule.

Horovod never synchronises them, so each rank's drift with its own data, and a checkpoint holds those
of one rank, which may be the Byzantine one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from horovod_byz.collect import Collector, Session, bind
from horovod_byz.rules import Median, as_rule

if TYPE_CHECKING:
    from horovod_byz.rules import Rule

NamedBuffers = Mapping[str, torch.Tensor] | Iterable[tuple[str, torch.Tensor]]


class Buffers:
    """Named buffers of a model, kept equal on all ranks.

    Floating-point buffers go through the rule; `running_var` is then cut off at 0, which no variance
    is below. Counters such as `num_batches_tracked` go by vote: their median, which is the value that
    a majority of workers holds wherever there is one.

    Args:
        named: (name, tensor) pairs, as `model.named_buffers()` gives them.
        rule: rule for floating-point buffers, or its name; default `Median()`.
        collect: the way to collect.
        options: further options of `Collector.bind`.

    Raises:
        TypeError: if `named` does not consist of names and tensors.
    """

    def __init__(
        self,
        named: NamedBuffers,
        rule: Rule | str | None = None,
        collect: str | Collector = "symmetric",
        **options: Any,
    ) -> None:
        found = dict(named)
        for name, buffer in found.items():
            if not isinstance(name, str) or not isinstance(buffer, torch.Tensor):
                raise TypeError("buffers must be (name, tensor) pairs, such as model.named_buffers()")
        self._rule = Median() if rule is None else as_rule(rule, "the rule for buffers")
        self._statistics = {name: b for name, b in found.items() if b.is_floating_point()}
        self._counters = {name: b for name, b in found.items() if _is_counter(b)}
        self._collect, self._options = collect, options
        self._sessions: dict[str, Session] = {}

    def synchronize(self, step: int | None = None) -> None:
        """Replaces each buffer by the aggregate over all workers. All ranks call it together."""
        self._aggregate("statistics", self._statistics, self._rule, step)
        self._aggregate("counters", self._counters, Median(), step)

    def rebind(self) -> None:
        """Forgets the ranks; the next `synchronize()` agrees anew with those that are there then."""
        self._sessions.clear()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_sessions": {}}  # a session belongs to this process and job

    @torch.no_grad()
    def _aggregate(self, kind: str, buffers: dict[str, torch.Tensor], rule: Rule, step: int | None) -> None:
        if not buffers:
            return
        # float64 holds float32 and counters up to 2^53 exactly.
        row = torch.cat([b.detach().reshape(-1).to("cpu", torch.float64) for b in buffers.values()]).numpy()
        session = self._session(kind, buffers, row.size)
        value = session.step(row.reshape(1, -1)[: len(session.workers)], rule, step=step).value
        at = 0
        for name, buffer in buffers.items():
            part = torch.from_numpy(value[at : at + buffer.numel()]).view(buffer.shape)
            at += buffer.numel()
            buffer.copy_(_fitting(name, part, buffer.dtype))

    def _session(self, kind: str, buffers: dict[str, torch.Tensor], d: int) -> Session:
        session = self._sessions.get(kind)
        if session is None or not session.is_current:
            layout = ";".join(f"{name}{tuple(b.shape)}{b.dtype}" for name, b in buffers.items())
            options = {"name": f"buffers.{kind}", "layout": layout, **self._options}
            self._sessions[kind] = bind(self._collect, d, np.float64, **options)
        return self._sessions[kind]


def aggregate_buffers(
    model: torch.nn.Module | NamedBuffers,
    rule: Rule | str | None = None,
    collect: str | Collector = "symmetric",
) -> None:
    """Replaces a model's buffers by a robust aggregate over all ranks, in place.

    Call it on all ranks before a checkpoint or an evaluation; or give `buffers=model.named_buffers()`
    to `DistributedOptimizer`, which then does it at every step.

    Args:
        model: a module, or its named buffers.
        rule: rule for floating-point buffers; default `Median()`.
        collect: the way to collect.

    Raises:
        TypeError, ValueError: as `Buffers` and the rule.
    """
    named = model.named_buffers() if isinstance(model, torch.nn.Module) else model
    Buffers(named, rule, collect).synchronize()


def _is_counter(buffer: torch.Tensor) -> bool:
    return not (buffer.is_floating_point() or buffer.is_complex() or buffer.dtype == torch.bool)


def _fitting(name: str, part: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if not dtype.is_floating_point:
        return part.floor()
    if name.rpartition(".")[2] == "running_var":
        part = part.clamp(min=0)
    limit = torch.finfo(dtype).max
    return part.clamp(-limit, limit)
