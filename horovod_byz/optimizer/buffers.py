"""Model buffers, such as the running statistics of BatchNorm, aggregated by a robust rule.

Horovod never synchronises them, so each rank's drift with its own data, and a checkpoint holds those
of one rank, which may be the Byzantine one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import torch

from horovod_byz.collect import Collector, Session, bind
from horovod_byz.optimizer.rows import FlatRows, cut, layout_of, row_dtype
from horovod_byz.rules import Median, as_rule, excluding

if TYPE_CHECKING:
    from horovod_byz.rules import Rule

NamedBuffers = Mapping[str, torch.Tensor] | Iterable[tuple[str, torch.Tensor]]


class Buffers:
    """Named buffers of a model, kept equal on all ranks.

    Floating-point buffers go through the rule; `running_var` is then cut off at 0, which no variance
    is below. Counters such as `num_batches_tracked` go by vote: their median, which is the value that
    a majority of workers holds wherever there is one.

    What a worker sends is its buffers as its own forward passes left them. Where a rank holds several
    workers, each forward pass starts from the same buffers: `hold` once, then `read` and `put_back` after
    each worker.

    Args:
        named: (name, tensor) pairs, as `model.named_buffers()` gives them.
        rule: rule for floating-point buffers, or its name; default `Median()`.
        collect: the way to collect.
        count: number of rows on this rank, one for each worker whose forward pass it computes.
        sent: for each worker of this rank, which of these rows it sends; default each its own.
        options: further options of `Collector.bind`.

    Attributes:
        fixed: buffers that have no aggregate, such as masks: equal on all ranks, or a rank's is damaged.

    Raises:
        TypeError: if `named` does not consist of names and tensors.
    """

    def __init__(
        self,
        named: NamedBuffers,
        rule: Rule | str | None = None,
        collect: str | Collector = "symmetric",
        *,
        count: int = 1,
        sent: Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        pairs = dict(named)
        for name, buffer in pairs.items():
            if not isinstance(name, str) or not isinstance(buffer, torch.Tensor):
                raise TypeError("buffers must be (name, tensor) pairs, such as model.named_buffers()")
        self._rules = {
            "statistics": Median() if rule is None else as_rule(rule, "the rule for buffers"),
            "counters": Median(),
        }
        kinds = {
            "statistics": {name: b for name, b in pairs.items() if b.is_floating_point()},
            "counters": {name: b for name, b in pairs.items() if _is_counter(b)},
        }
        self._kinds = {kind: buffers for kind, buffers in kinds.items() if buffers}
        counted = [name for buffers in kinds.values() for name in buffers]
        self.fixed = {name: b for name, b in pairs.items() if name not in counted}
        self._count, self._sent = count, list(range(count)) if sent is None else list(sent)
        self._collect, self._options = collect, options
        self._sessions: dict[str, Session] = {}
        self._rows: dict[str, FlatRows] = {}
        self._values: dict[str, npt.NDArray[Any]] = {}

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules that its buffers need."""
        return tuple(self._rules[kind] for kind in self._kinds)

    def synchronize(self, step: int | None = None) -> None:
        """Replaces each buffer by the aggregate over all workers. All ranks call it together."""
        self.read()
        self.collect(step)
        self.write()

    def adopt(self) -> None:
        """Moves the buffers next to one another; see `FlatRows.adopt`."""
        for kind in self._kinds:
            self._memory(kind).adopt()

    def hold(self) -> None:
        """Remembers the buffers as they are before the workers' forward passes."""
        self.read(self._count)

    def read(self, row: int = 0) -> None:
        """Copies the buffers into a row."""
        for kind in self._kinds:
            self._memory(kind).read(row)

    def put_back(self) -> None:
        """Makes the buffers again what they were at `hold`."""
        for kind in self._kinds:
            self._rows[kind].put_back(self._count)

    def collect(self, step: int | None = None, excluded: Sequence[int] = ()) -> None:
        """Aggregates the rows of all but excluded workers; the buffers stay as they are until `write`."""
        for kind in self._kinds:
            session = self._session(kind)
            rows = self._memory(kind).rows[self._sent].cpu().numpy()
            rule = excluding(self._rules[kind], excluded)
            collected = session.step(rows[: len(session.workers)], rule, step=step)
            self._values[kind] = collected.value

    @torch.no_grad()
    def write(self) -> None:
        """Replaces the buffers by what was collected last."""
        for kind, value in self._values.items():
            buffers = self._kinds[kind]
            parts = cut(torch.from_numpy(value), [*buffers.values()])
            for (name, buffer), part in zip(buffers.items(), parts, strict=True):
                buffer.copy_(_fitting(name, part, buffer.dtype))
        self._values.clear()

    def rebind(self) -> None:
        """Forgets the ranks; the next `synchronize()` agrees anew with those that are there then."""
        self._sessions.clear()

    def __getstate__(self) -> dict[str, Any]:
        # A session belongs to this process and job, and rows belong to its tensors.
        return {**self.__dict__, "_sessions": {}, "_rows": {}, "_values": {}}

    def _memory(self, kind: str) -> FlatRows:
        """The rows of a kind, and one more for `hold`; made and bound anew where buffers were changed."""
        buffers = [*self._kinds[kind].values()]
        memory = self._rows.get(kind)
        if memory is None or not memory.fits(buffers):
            # float64 holds counters up to 2^53 exactly.
            dtype = row_dtype(buffers) if kind == "statistics" else torch.float64
            # On one device, so that a step copies to the CPU once.
            devices = {buffer.device for buffer in buffers}
            device = devices.pop() if len(devices) == 1 else torch.device("cpu")
            memory = self._rows[kind] = FlatRows(buffers, self._count + 1, dtype, device)
            self._sessions.pop(kind, None)
        return memory

    def _session(self, kind: str) -> Session:
        session, memory = self._sessions.get(kind), self._memory(kind)
        if session is None or not session.is_current:
            layout = layout_of([*self._kinds[kind]], memory.tensors)
            options = {"name": f"buffers.{kind}", "layout": layout, **self._options}
            self._sessions[kind] = bind(self._collect, memory.d, memory.dtype, **options)
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
