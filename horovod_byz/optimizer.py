"""`DistributedOptimizer`: a torch optimizer that steps with the robust aggregate of all workers.

It takes the arguments of Horovod's optimizer of the same name, and wraps by composition: the wrapped
optimizer keeps its state, its `defaults` and its class.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from horovod_byz import replicas
from horovod_byz.buffers import Buffers, NamedBuffers
from horovod_byz.collect import Collected, Collector, LateRanksError, Session, Wire, resolve
from horovod_byz.ledger import Ledger
from horovod_byz.rules import Mean
from horovod_byz.wrapper.arguments import (
    check_horovod_arguments,
    check_optimizer,
    name_parameters,
    resolve_compression,
)
from horovod_byz.wrapper.flat import FlatGradient
from horovod_byz.wrapper.forwarding import ForwardingOptimizer
from horovod_byz.wrapper.hooks import Hooks

if TYPE_CHECKING:
    from horovod_byz.rules import Rule


# What a pickled or copied wrapper keeps; hooks and the session belong to this process and job.
_KEPT = (
    *("optimizer", "rule", "wire", "ledger", "backward_passes_per_step"),
    *("_collector", "compression", "_sparse_as_dense", "_options", "_buffers"),
)


class DistributedOptimizer(ForwardingOptimizer):
    """Aggregates the workers' gradients by a rule before the wrapped optimizer steps.

    With `rule=Mean()` it does what Horovod's optimizer does. The loop stays as it is; clip between
    `synchronize()` and `step()`, as with Horovod:

        optimizer.synchronize()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        with optimizer.skip_synchronize():
            optimizer.step()

    With scaled losses, where the aggregate is finite also when the workers' gradients overflow:

        scaler.scale(loss).backward()
        optimizer.synchronize()
        with optimizer.skip_synchronize():
            scaler.step(optimizer)
        scaler.update(scaler.get_scale() / 2 if optimizer.last.overflowed else None)

    With `collect=Root(dedicated=True)` rank 0 runs the same loop and holds no worker: it gets the same
    aggregate and so the same model, while its own gradients are not sent to anybody, and it may leave out
    the forward and backward pass. Worker i is then on rank i + 1; see `workers`.

    Args:
        optimizer: the optimizer to wrap.
        named_parameters: (name, parameter) pairs, as `model.named_parameters()` gives them.
        compression: None, `hvd.Compression.none`, or `SignCompression()`: workers send one bit per
            coordinate, and the rule works on rows of +1 and -1. Buffers travel in full.
        backward_passes_per_step: backward passes whose gradients add up to a worker's row.
        op: None or `hvd.Average`; how rows are combined is up to `rule`.
        gradient_predivide_factor: 1.0; rows are summed in float64 and need no division before.
        num_groups: accepted and without effect, since a worker's gradient travels as one row.
        groups: likewise.
        sparse_as_dense: whether sparse gradients may be made dense on their way.
        process_set: None or the global one.
        rule: the aggregation rule; default `Mean()`.
        collect: "symmetric", "root", "sharded", or a `Collector`.
        buffers: named buffers to aggregate at every step, such as `model.named_buffers()`.
        buffer_rule: rule for floating-point buffers; default `Median()`.
        wire: a simulated attack on the collected rows; see `Session.step`.
        threads: threads for the kernels; default torch's number.
        timeout: seconds that a wait between ranks may take; default 300.

    Attributes:
        optimizer: the wrapped optimizer.
        rule: the rule; it may be replaced between steps, on all ranks alike.
        compression: what travels in place of a row, or None.
        ledger: verdicts per worker, added up.
        last: what was collected last, or None.

    Raises:
        TypeError: if `optimizer` is no torch optimizer, or a parameter is of no real floating dtype.
        ValueError: if the optimizer or one of its parameters is wrapped already, an argument is not
            supported, or the rule does not hold for the number of workers.
        HeaderMismatchError: if the ranks' models, rules or collectors differ.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        named_parameters: Iterable[tuple[str, torch.Tensor]] | None = None,
        compression: Any = None,
        backward_passes_per_step: int = 1,
        op: Any = None,
        gradient_predivide_factor: float = 1.0,
        num_groups: int = 0,
        groups: Any = None,
        sparse_as_dense: bool = False,
        process_set: Any = None,
        *,
        rule: Rule | None = None,
        collect: str | Collector = "symmetric",
        buffers: NamedBuffers | None = None,
        buffer_rule: Rule | None = None,
        wire: Wire | None = None,
        threads: int | None = None,
        timeout: float | None = None,
    ) -> None:
        check_optimizer(optimizer, DistributedOptimizer)
        check_horovod_arguments(op, gradient_predivide_factor, process_set)
        super().__init__(optimizer)
        self.rule: Rule = Mean() if rule is None else rule
        self.wire, self.ledger = wire, Ledger()
        self.last: Collected | None = None
        self.compression = resolve_compression(compression)
        self._collector, self._sparse_as_dense = resolve(collect), sparse_as_dense
        self._options: dict[str, Any] = {"threads": threads, "timeout": timeout}
        self._buffers: Buffers | None = None
        if buffers is not None:
            self._buffers = Buffers(buffers, buffer_rule, self._collector, **self._options)
        self._names = name_parameters(optimizer, named_parameters)
        self._start(backward_passes_per_step)
        self._bind()

    def _start(self, backward_passes_per_step: int) -> None:
        self._should_synchronize = True
        self._session: Session | None = None
        self._flat = FlatGradient([], [])
        self._hooks = Hooks()
        self.set_backward_passes_per_step(backward_passes_per_step)
        self._hooks.attach(self._names)

    @property
    def workers(self) -> range:
        """Indices of this rank's workers: its rank, but for a dedicated root, which has none."""
        return self._bind().workers

    def set_backward_passes_per_step(self, passes: int) -> None:
        """Sets how many backward passes add up to a worker's row."""
        if passes < 1:
            raise ValueError(f"backward_passes_per_step must be at least 1, got {passes}")
        self.backward_passes_per_step = self._hooks.allowed = passes

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clears the gradients, and forgets backward passes that were not used.

        A step that is computed and then skipped counts: a rank that skips one alone is named at the next.
        """
        self._hooks.discard()
        self.optimizer.zero_grad(set_to_none=set_to_none)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads the wrapped optimizer's state, saved with or without the wrapper."""
        self._hooks.reset()
        self.optimizer.load_state_dict(state_dict)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds parameters, on all ranks alike."""
        self.optimizer.add_param_group(param_group)
        group = len(self.param_groups) - 1
        added = {p: f"group{group}.{i}" for i, p in enumerate(self.param_groups[group]["params"])}
        self._hooks.attach(added)
        self._names.update(added)

    def synchronize(self) -> Collected:
        """Replaces the gradients of this rank by the aggregate over all workers.

        All ranks call it together. Parameters without a gradient count as zeros.

        Returns:
            The aggregate with weights and verdicts.

        Raises:
            TypeError: if a gradient is sparse, unless `sparse_as_dense`.
            LateRanksError: as `Session.step`; the ledger has the late workers as absent.
            HeaderMismatchError, EquivocationError: as `Session.step`.
        """
        session = self._bind()
        session.next_step += self._hooks.skipped
        self._hooks.skipped = 0
        rows = self._flat.fill()[: len(session.workers)]
        try:
            self.last = session.step(rows, self.rule, self.wire)
        except LateRanksError as error:  # elastic training goes on, and would never show its text
            late = [worker for rank in error.ranks for worker in session.layout.workers(rank)]
            self.ledger.absent(late, session.next_step)
            raise
        self._flat.write(self.last.value)
        if self._buffers:
            self._buffers.synchronize()
        redundancy = getattr(self.rule, "redundancy", None)
        groups = None if redundancy is None else redundancy.groups_of(session.n)
        self.ledger.add(self.last, self.last.step, groups)
        self._hooks.seal()
        return self.last

    @contextmanager
    def skip_synchronize(self) -> Iterator[None]:
        """Inside, `step()` takes the gradients as they are, after the caller's own `synchronize()`."""
        self._should_synchronize = False
        try:
            yield
        finally:
            self._should_synchronize = True

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Aggregates, unless `synchronize()` did since the last step, and steps.

        Args:
            closure: computes the loss and its gradients; each call is followed by an aggregation.

        Returns:
            What the wrapped optimizer's `step` returns.
        """
        if closure is not None:
            result: Any = self.optimizer.step(self._aggregating(closure))
        else:
            if self._should_synchronize and self._hooks.sealed:
                warnings.warn(
                    "step() after synchronize() takes the gradients as they are; say so by "
                    "`with optimizer.skip_synchronize():`",
                    stacklevel=2,
                )
            elif self._should_synchronize:
                self.synchronize()
            result = self.optimizer.step()
        self._hooks.reset()
        return result

    def _aggregating(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        def call() -> Any:
            with torch.enable_grad():
                loss = closure()
            if self._should_synchronize:
                self.synchronize()
            return loss

        return call

    def rebind(self) -> None:
        """Forgets the ranks; call it when Horovod was reset, as in elastic training.

        The next `synchronize()` agrees anew with the ranks that are there then, from step 0 on. The ledger
        stays, though worker i may be on another host from then on: begin a new one in its place.
        """
        self._session = None
        if self._buffers:
            self._buffers.rebind()

    def remove_hooks(self) -> None:
        """Takes the wrapper off its parameters, which may then be wrapped again."""
        self._hooks.remove()

    def __enter__(self) -> DistributedOptimizer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove_hooks()

    def _bind(self) -> Session:
        """The session for the parameters as they are; agrees with the other ranks if they changed."""
        trained = [p for group in self.param_groups for p in group["params"] if p.requires_grad]
        if self._session is not None and _same(trained, self._flat.parameters):
            return self._session
        step = self._session.next_step if self._session is not None else 0
        self._hooks.attach(self._names)
        self._flat = FlatGradient(trained, [self._names[p] for p in trained], self._sparse_as_dense)
        row = self._flat.row.numpy()
        self._session = self._collector.bind(
            row.size,
            row.dtype,
            layout=self._flat.layout,
            compression=self.compression,
            segments=self._flat.segments,
            **self._options,
        )
        self._session.next_step = step
        self.rule.check(self._session.n)
        replicas.compare(self._session.transport, self.rule)
        return self._session

    def __getstate__(self) -> dict[str, Any]:
        names = [self._names[p] for group in self.param_groups for p in group["params"]]
        return {**{name: self.__dict__[name] for name in _KEPT}, "names": names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        names = state.pop("names")
        self.__dict__.update(state)
        parameters = [p for group in self.param_groups for p in group["params"]]
        self._names, self.last = dict(zip(parameters, names, strict=True)), None
        self._start(self.backward_passes_per_step)

    def __repr__(self) -> str:
        return f"DistributedOptimizer(rule={self.rule!r}, collect={self._collector!r})\n{self.optimizer!r}"


def _same(a: Iterable[torch.Tensor], b: Iterable[torch.Tensor]) -> bool:
    return [id(p) for p in a] == [id(p) for p in b]
