"""`DistributedOptimizer`: a torch optimizer that steps with the robust aggregate of all workers.

It takes the arguments of Horovod's optimizer of the same name, and wraps by composition: the wrapped
optimizer keeps its state, its `defaults` and its class.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from horovod_byz.collect import (
    Collected,
    Collector,
    LateRanksError,
    Session,
    Wire,
    joining,
    ranks,
    resolve,
    time_limit,
)
from horovod_byz.common.checks import count
from horovod_byz.faults.faults import Faults
from horovod_byz.faults.rehearsal import Rehearsal
from horovod_byz.ledger.ledger import Ledger
from horovod_byz.optimizer.arguments import (
    check_horovod_arguments,
    check_optimizer,
    name_parameters,
    resolve_compression,
)
from horovod_byz.optimizer.buffers import Buffers, NamedBuffers
from horovod_byz.optimizer.forwarding import ForwardingOptimizer
from horovod_byz.optimizer.guard import guarded
from horovod_byz.optimizer.hooks import Hooks
from horovod_byz.optimizer.loss import SharedLoss, Trials, is_finite
from horovod_byz.optimizer.rows import WorkerRows
from horovod_byz.optimizer.scaling import LossScale
from horovod_byz.optimizer.state import digest
from horovod_byz.optimizer.synchronizer import Synchronizer
from horovod_byz.optimizer.uncompiled import uncompiled
from horovod_byz.redundancy import replicas
from horovod_byz.rules import Mean, as_rule

if TYPE_CHECKING:
    from horovod_byz.rules import Rule


# What a pickled or copied wrapper keeps; hooks and sessions belong to this process and job.
_KEPT = (
    *("optimizer", "_rule", "wire", "ledger", "backward_passes_per_step", "check_state_every"),
    *("_collector", "compression", "_options", "_buffers", "_faults"),
)
# What it makes anew.
_MADE = (
    *("last", "_parameter_names", "_should_synchronize", "_session", "_rows", "_hooks", "_loss"),
    *("grad_scale", "found_inf", "_rehearsal"),  # GradScaler sets and deletes two of them around a step
)
_LEFT_OUT = "step left out: over half of the workers' gradients held NaN or infinities"


_NO_LOSS = (
    "over half of the workers' losses were NaN or infinite wherever the optimizer looked, so its line search "
    "has nothing to compare: check the closure's loss, or lower the learning rate"
)


class DistributedOptimizer(ForwardingOptimizer):
    """Aggregates the workers' gradients by a rule before the wrapped optimizer steps.

    With `rule=Mean()` it does what Horovod's optimizer does. The loop stays as it is; clip between
    `synchronize()` and `step()`, as with Horovod:

        optimizer.synchronize()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        with optimizer.skip_synchronize():
            optimizer.step()

    `torch.amp.GradScaler` works as with any optimizer, with or without `synchronize()` and `unscale_()`. A
    step in which over half of the workers' gradients hold NaN or infinities is left out, on all ranks.

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
        sparse_as_dense: likewise; a sparse gradient travels as part of the dense row, and comes back sparse.
        process_set: None or the global one.
        rule: the aggregation rule; default `Mean()`.
        collect: "symmetric", "root", "sharded", or a `Collector`.
        buffers: named buffers to aggregate at every step, such as `model.named_buffers()`.
        buffer_rule: rule for floating-point buffers; default `Median()`.
        wire: a simulated attack on the collected rows; see `Session.step`.
        threads: threads for the kernels; default torch's number.
        timeout: seconds that a wait between ranks may take; default 300.
        check_state_every: steps between two comparisons of the ranks' parameters, optimizer state and options
            such as the learning rate; the first step compares too. 0 for never. At d = 10^7 a comparison
            takes one core 11,000 microseconds with SGD and 42,000 with Adam, whose state is digested too.

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

    The constructor does not communicate. The first step agrees with the other ranks, and raises
    HeaderMismatchError if their models, rules or collectors differ, StateMismatchError if their
    parameters do.
    """

    _OWN: ClassVar[frozenset[str]] = frozenset((*_KEPT, *_MADE))
    # GradScaler then calls step() on every rank; it would leave out the step of a rank that saw an overflow.
    _step_supports_amp_scaling = True

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
        check_state_every: int = 100,
    ) -> None:
        check_optimizer(optimizer, DistributedOptimizer)
        check_horovod_arguments(op, gradient_predivide_factor, process_set)
        super().__init__(optimizer)
        self.rule = Mean() if rule is None else rule
        self.wire, self.ledger = wire, Ledger()
        self.last: Collected | None = None
        self.compression = resolve_compression(compression)
        self._collector = resolve(collect)
        self._options: dict[str, Any] = {"threads": threads, "timeout": time_limit(timeout)}
        self._buffers: Buffers | None = None
        if buffers is not None:
            self._buffers = Buffers(buffers, buffer_rule, self._collector, **self._options)
        self.check_state_every = count(self, "check_state_every", check_state_every)
        self._parameter_names = name_parameters(optimizer, named_parameters)
        self.rule.check(self._collector.workers_of(ranks()[1]))
        self._faults = Faults.from_environment()
        self._start(backward_passes_per_step)
        joining.watch(self)

    def _start(self, backward_passes_per_step: int) -> None:
        """Makes what belongs to this process; does not communicate."""
        self._should_synchronize = True
        self._session: Session | None = None
        self._loss = SharedLoss(self._collector, **self._options)
        self._hooks = Hooks()
        self.set_backward_passes_per_step(backward_passes_per_step)
        self._rows = self._flatten()
        self._hooks.attach(self._parameter_names)
        self._rehearse(self._faults)

    def _rehearse(self, faults: Faults) -> None:
        """Injects faults from the next step on; see `Faults.around`."""
        self._faults, self._rehearsal = faults, Rehearsal(faults) if faults else None

    @property
    def rule(self) -> Rule:
        """The aggregation rule; it may be replaced between steps, on all ranks alike, also by its name."""
        return self._rule

    @rule.setter
    def rule(self, rule: Rule | str) -> None:
        self._rule = as_rule(rule)

    @property
    def workers(self) -> range:
        """Indices of this rank's workers: its rank, but for a dedicated root, which has none."""
        return self._bind().workers

    def set_backward_passes_per_step(self, passes: int) -> None:
        """Sets how many backward passes add up to a worker's row."""
        if passes < 1:
            raise ValueError(f"backward_passes_per_step must be at least 1, got {passes}")
        self.backward_passes_per_step = self._hooks.allowed = passes

    @uncompiled
    def zero_grad(self, *arguments: Any, **options: Any) -> None:
        """Clears the gradients, and forgets backward passes that were not used.

        A step that is computed and then skipped counts: a rank that skips one alone is named at the next.

        Args:
            arguments: what the wrapped optimizer's `zero_grad` takes, such as `set_to_none`.
            options: likewise.
        """
        self._hooks.discard()
        self.optimizer.zero_grad(*arguments, **options)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads the wrapped optimizer's state, saved with or without the wrapper."""
        self._hooks.reset()
        self.optimizer.load_state_dict(state_dict)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds parameters, on all ranks alike."""
        self.optimizer.add_param_group(param_group)
        self._adopt()

    @uncompiled
    def synchronize(self) -> Collected:
        """Replaces the gradients of this rank by the aggregate over all workers.

        All ranks call it together. Parameters without a gradient count as zeros. Where the result
        `overflowed`, the gradients are NaN, so that a GradScaler sees it, and `step()` leaves the step out.

        Returns:
            The aggregate with weights and verdicts.

        Raises:
            LateRanksError: as `Session.step`; the ledger has the late workers as absent.
            HeaderMismatchError, EquivocationError: as `Session.step`.
        """
        collected = self._aggregate()
        if collected.overflowed:
            self._rows.invalidate()
        return collected

    def _aggregate(self) -> Collected:
        session = self._bind()
        state = functools.partial(self._state_digest, session.next_step)
        if all(session.layout.rows):  # a dedicated root computes nothing, so it cannot count what is skipped
            session.next_step += self._hooks.skipped - self._repeats(session)
        self._hooks.skipped, self._hooks.used_up = 0, False
        rows = self._rows.fill()[: len(session.workers)]
        if self._buffers:
            self._buffers.read()
        wire = self.wire
        if self._rehearsal is not None:
            wire = self._rehearsal.begin(self.optimizer, session, rows, wire)
        with self._recovering():
            self.last = self._synchronizer(session).step(rows, wire, state=state)
        self._rows.write(self.last.value)
        self._hooks.seal()
        return self.last

    def _repeats(self, session: Session) -> bool:
        """Whether this step takes the last step's aggregate for this rank's gradients.

        It then has that step's number, so that a rank that steps twice alone is named at once.
        """
        again = self._hooks.used_up and session.next_step > 0
        gradients = (p.grad.to_dense() for p in self._parameters() if p.grad is not None)
        return again and any(bool(gradient.any()) for gradient in gradients)

    def _synchronizer(self, session: Session) -> Synchronizer:
        """Made at each step: rule and ledger may be replaced in between."""
        return Synchronizer(session, self.rule, self.ledger, self._buffers)

    @contextmanager
    def _recovering(self) -> Iterator[None]:
        """Elastic training goes on after a LateRanksError, whichever session was waiting.

        Ranks may have ended it a step apart, so all sessions bind anew.
        """
        try:
            yield
        except LateRanksError:
            self.rebind()
            raise

    def _state_digest(self, first: int, step: int) -> bytes:
        """A digest where the states are compared: at multiples of `check_state_every` from `first` to `step`.

        Steps may have been skipped in between; step 0 comes again when ranks are bound anew.
        """
        every = self.check_state_every
        due = every and step // every > (min(first, step) - 1) // every
        return digest(self.optimizer) if due else b""

    @contextmanager
    def skip_synchronize(self) -> Iterator[None]:
        """Inside, `step()` takes the gradients as they are, after the caller's own `synchronize()`."""
        self._should_synchronize = False
        try:
            yield
        finally:
            self._should_synchronize = True

    @uncompiled
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Aggregates, unless `synchronize()` did since the last step, and steps.

        Args:
            closure: computes the loss and its gradients; each call is followed by an aggregation of
                both. The wrapped optimizer gets the median of the workers' losses, so that all ranks
                decide alike.

        Returns:
            What the wrapped optimizer's `step` returns; None where the step was left out, since over half
            of the workers' gradients held NaN or infinities. Where they, or most losses, do at a later call
            of the closure, as in a line search that goes too far, the optimizer gets a loss above the step's
            others and gradients of zeros, so that it backs off.
        """
        result = self._step() if closure is None else self._step_by(closure)
        self._hooks.end()
        return result

    def _step(self) -> Any:
        scale = LossScale(self)
        if self._hooks.sealed:
            if self._should_synchronize and not scale.present:
                warnings.warn(
                    "optimizer.step() called without optimizer.skip_synchronize() after "
                    "optimizer.synchronize(): it takes the gradients as they are; say so by "
                    "`with optimizer.skip_synchronize():`",
                    stacklevel=5,
                )
            skip = self._overflowed or scale.overflowed
        elif self._should_synchronize:
            # A rank's scale is its own affair: rows are gradients of the loss itself.
            # Of all parameters: one that was added or thawed since the last step is not in the row yet.
            scale.remove(self._parameters())
            self.synchronize()
            skip = self._overflowed
        else:
            self._refuse_own_gradients()
            skip = scale.overflowed
        if skip:
            if not scale.present:
                warnings.warn(_LEFT_OUT, stacklevel=5)
            return None
        scale.remove(self._parameters())
        return self.optimizer.step()

    def _refuse_own_gradients(self) -> None:
        if self._hooks.pending:
            raise RuntimeError(
                "optimizer.step() inside skip_synchronize() would take this rank's own gradients: call "
                "optimizer.synchronize() after backward() and before it"
            )

    @property
    def _overflowed(self) -> bool:
        return self.last is not None and self.last.overflowed

    def _step_by(self, closure: Callable[[], Any]) -> Any:
        trials = Trials()
        try:
            if self._should_synchronize and self._hooks.pending:
                self._aggregate()  # the optimizer may use these gradients before it asks for others
                if self._overflowed:
                    raise _LeftOutError
            return self.optimizer.step(self._aggregating(closure, trials))
        except IndexError as error:  # so torch's strong-Wolfe search ends where it sees no finite loss
            if trials.known or is_finite(trials.last):
                raise
            raise RuntimeError(_NO_LOSS) from error
        except _LeftOutError:
            warnings.warn(_LEFT_OUT, stacklevel=5)
            return None

    def _aggregating(self, closure: Callable[[], Any], trials: Trials) -> Callable[[], Any]:
        first = not self._hooks.sealed

        def call() -> Any:
            nonlocal first
            self._hooks.reset()
            with torch.enable_grad():
                loss = closure()
            if not self._should_synchronize:
                self._refuse_own_gradients()
                return loss
            self._aggregate()
            assert self.last is not None
            with self._recovering(), self._synchronizer(self._bind()).absences():
                loss = self._loss(loss)
            if not self._overflowed and is_finite(loss):
                trials.note(loss)
            elif first and self._overflowed:
                raise _LeftOutError
            elif not first and (self._overflowed or trials.known):
                # The optimizer has moved parameters, and is to find its way back.
                self._rows.write(np.zeros_like(self.last.value))
                loss = trials.worse(loss)
            trials.last, first = loss, False
            return loss

        return call

    def _guarded(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        label = f"{type(self.optimizer).__name__}.{name}"
        return guarded(method, label, self._hooks, list(self._parameters()))

    def rebind(self) -> None:
        """Forgets the ranks; call it when Horovod was reset, as in elastic training.

        The next `synchronize()` agrees anew with the ranks that are there then, from step 0 on. The ledger
        stays, though worker i may be on another host from then on: begin a new one in its place.
        """
        self._session = None
        self._loss.rebind()
        if self._buffers:
            self._buffers.rebind()

    def remove_hooks(self) -> None:
        """Takes the wrapper off its parameters, which may then be wrapped again."""
        self._hooks.remove()

    def __enter__(self) -> DistributedOptimizer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove_hooks()

    def _parameters(self) -> Iterator[torch.Tensor]:
        return (p for group in self.param_groups for p in group["params"])

    def _trained(self) -> list[torch.Tensor]:
        return [p for p in self._parameters() if p.requires_grad]

    def _adopt(self) -> None:
        """Names and hooks parameters that are new, however they came into the parameter groups."""
        for i, group in enumerate(self.param_groups):
            for j, parameter in enumerate(group["params"]):
                self._parameter_names.setdefault(parameter, f"group{i}.{j}")
        self._hooks.attach(self._parameter_names)

    def _flatten(self) -> WorkerRows:
        trained = self._trained()
        names = [self._parameter_names[p] for p in trained]
        sparse_only = isinstance(self.optimizer, torch.optim.SparseAdam)
        return WorkerRows(trained, names, sparse=sparse_only)

    def _bind(self) -> Session:
        """The session for the parameters and ranks as they are; agrees with the others if they changed."""
        session, start = self._session, 0
        if session is not None and not session.is_current:  # Horovod was initialised again
            self.rebind()
        elif session is not None:
            if self._rows.fits(self._trained()):
                return session
            start = session.next_step
        self._session = None  # if the ranks do not agree now, what was bound no longer fits the row
        self._adopt()
        self._rows = self._flatten()
        session = self._collector.bind(
            self._rows.d,
            self._rows.dtype,
            layout=self._rows.layout,
            compression=self.compression,
            segments=self._rows.segments,
            start=start,
            **self._options,
        )
        if session.next_step == 0:  # all count anew, and a new rank knows of nothing that was skipped
            self._hooks.skipped = 0
        self.rule.check(session.n)
        session.when_bound(replicas.compare, self.rule)
        self._session = session
        return session

    def __reduce__(self) -> Any:
        # Not by __class__, which passes as the wrapped optimizer's.
        return _blank, (type(self),), self.__getstate__()

    def __getstate__(self) -> dict[str, Any]:
        self._adopt()
        names = [self._parameter_names[p] for p in self._parameters()]
        return {**{name: self.__dict__[name] for name in _KEPT}, "names": names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        names = state.pop("names")
        self.__dict__.update(state)
        self._pass_as_horovods()
        self._parameter_names, self.last = dict(zip(self._parameters(), names, strict=True)), None
        self._start(self.backward_passes_per_step)

    def __repr__(self) -> str:
        return f"DistributedOptimizer(rule={self.rule!r}, collect={self._collector!r})\n{self.optimizer!r}"


class _LeftOutError(Exception):
    """Ends a step of the wrapped optimizer before it has moved a parameter."""


def _blank(kind: type[DistributedOptimizer]) -> DistributedOptimizer:
    return kind.__new__(kind)
