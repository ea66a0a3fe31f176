"""`DistributedOptimizer`: a torch optimizer that steps with the robust aggregate of all workers.

It takes the arguments of Horovod's optimizer of the same name, and wraps by composition: the wrapped
optimizer keeps its state, its `defaults` and its class.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from horovod_byz.collect import (
    Collected,
    Collector,
    LateRanksError,
    Session,
    Wire,
    as_compression,
    joining,
    places,
    ranks,
    resolve,
    time_limit,
)
from horovod_byz.collect.sharded import ShardedSession
from horovod_byz.common.checks import count
from horovod_byz.faults.faults import Faults
from horovod_byz.faults.rehearsal import Rehearsal
from horovod_byz.ledger.enforcement import Enforcer
from horovod_byz.ledger.ledger import Ledger
from horovod_byz.ledger.policy import Policy, Reaction, as_policy
from horovod_byz.optimizer.arguments import (
    check_horovod_arguments,
    check_optimizer,
    check_own_arguments,
    name_parameters,
    refuse_ddp,
)
from horovod_byz.optimizer.buffers import Buffers, NamedBuffers
from horovod_byz.optimizer.closures import step_by
from horovod_byz.optimizer.departures import Departures
from horovod_byz.optimizer.forwarding import ForwardingOptimizer
from horovod_byz.optimizer.guard import guarded
from horovod_byz.optimizer.hooks import Hooks
from horovod_byz.optimizer.leaves import Leaf, leaves_of, leaves_of_tensors
from horovod_byz.optimizer.loss import SharedLoss
from horovod_byz.optimizer.momentum import worker_momentum as momentum_of
from horovod_byz.optimizer.recording import as_ledger, check_owner, introduce, introducing, recorded
from horovod_byz.optimizer.remembered import Remembered
from horovod_byz.optimizer.repair import OnMismatch, StateCheck, checked
from horovod_byz.optimizer.rows import WorkerRows
from horovod_byz.optimizer.stepping import step_once
from horovod_byz.optimizer.synchronizer import Synchronizer
from horovod_byz.optimizer.uncompiled import uncompiled
from horovod_byz.redundancy import replicas
from horovod_byz.rules import Mean, as_rule

if TYPE_CHECKING:
    from horovod_byz.ledger.evidence import Evidence
    from horovod_byz.rules import Rule


# What a pickled or copied wrapper keeps; hooks and sessions belong to this process and job.
_KEPT = (
    *("optimizer", "_rule", "wire", "_ledger", "check_state_every"),
    *("_collector", "compression", "_options", "_buffers", "on_state_mismatch", "_policy", "_faults"),
    *("_enforcer", "_remembered"),
)
# Arguments that cannot be changed later; without this they would be set in the wrapped optimizer.
_FIXED = frozenset(
    (
        *("collect", "timeout", "threads", "buffers", "buffer_rule", "worker_momentum", "on_verdict"),
        *("named_parameters", "op", "gradient_predivide_factor", "num_groups", "process_set"),
    )
)
# What it makes anew.
_MADE = (
    *("last", "_parameter_names", "_should_synchronize", "_session", "_rows", "_hooks", "_loss"),
    *("_rehearsal", "_terms", "_departures"),
    *("grad_scale", "found_inf"),  # GradScaler sets and deletes them around a step
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
        compression: how rows are packed for sending: `HalfCompression()` (or "bfloat16", "float16",
            `hvd.Compression.fp16`) in 16 bits a coordinate; `SignCompression()` in one, and the rule works on
            rows of +1 and -1; None or `hvd.Compression.none` not at all. Buffers travel in full.
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
        worker_momentum: beta, at least 0 and below 1. Each worker sends m_t = beta m_(t-1) + (1 - beta) g_t
            in place of its gradient g_t, which leaves an attack less noise to hide in; the rule and the
            wrapped optimizer see a mean of m_t. Each rank's `state_dict` then holds its own worker's
            momentum: where all ranks load that of one, or a rank is new, all begin with zeros.
        wire: a simulated attack on the collected rows; see `Session.step`.
        threads: threads for the kernels; default torch's number.
        timeout: seconds that a wait between ranks may take; default 300.
        check_state_every: steps between two comparisons of the ranks' parameters, optimizer state and options
            such as the learning rate; the first step compares too. 0 for never. At d = 10^7 a comparison
            takes one core 11,000 microseconds with SGD and 42,000 with Adam, whose state is digested too.
        on_state_mismatch: what happens to a rank whose parameters or optimizer state differ from the
            majority's. "repair" (default) replaces what differs by the majority's, bit for bit, and the step
            goes on; "stop" raises StateMismatchError. Both name the rank and the tensor in the ledger.
            Options that differ, and ranks without a majority, always stop the run.
        policy: what follows from evidence against a worker: a `Policy`, or "warn", "exclude", "stop", or a
            function of an `Evidence`; the same on all ranks. Default: warn.
        ledger: a folder, on all ranks, whose file `ledger.jsonl` is written while the run goes on; or a
            `Ledger`. Default a ledger in memory. Either way rank 0 warns of each culprit at once, on the
            logger "horovod_byz". See `Ledger`, also for what a copy of the optimizer does with it.
        on_verdict: called with each `Evidence` at once, on every rank; what it raises ends the step.

    Attributes:
        optimizer: the wrapped optimizer.
        rule: the rule; it may be replaced between steps, on all ranks alike.
        compression: how rows are packed for sending.
        on_state_mismatch: "repair" or "stop"; it may be changed between steps, on all ranks alike.
        ledger: verdicts per worker, added up.
        policy: what follows from them; it may be replaced between steps, on all ranks alike.
        excluded: the workers whose rows do not count, by the policy.
        last: what was collected last, or None.

    Raises:
        TypeError: if `optimizer` is no torch optimizer, or a parameter is of no real floating dtype; if
            `on_verdict` is given beside a `Ledger`, which takes it itself.
        OSError: if the ledger's folder cannot be written to.
        ValueError: if the optimizer or one of its parameters is wrapped already, an argument is not
            supported, or the rule does not hold for the number of workers.

    The constructor does not communicate. The first step agrees with the other ranks, and raises
    HeaderMismatchError if their models, rules, collectors or policies differ, StateMismatchError if their
    parameters do and no majority holds the same.
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
        worker_momentum: float = 0.0,
        wire: Wire | None = None,
        threads: int | None = None,
        timeout: float | None = None,
        check_state_every: int = 100,
        on_state_mismatch: OnMismatch = "repair",
        policy: Policy | Reaction | None = None,
        ledger: Ledger | str | os.PathLike[str] | None = None,
        on_verdict: Callable[[Evidence], Any] | None = None,
    ) -> None:
        check_optimizer(optimizer, DistributedOptimizer)
        check_horovod_arguments(op, gradient_predivide_factor, process_set)
        check_own_arguments(self, wire, threads, buffers, num_groups)
        super().__init__(optimizer)
        self.rule = Mean() if rule is None else rule
        momentum = momentum_of(self, worker_momentum, optimizer)
        self._remembered = Remembered(momentum)
        self.wire, self._ledger = wire, as_ledger(ledger, on_verdict, momentum=momentum is not None)
        self.last: Collected | None = None
        self.compression = as_compression(compression)
        self._collector = resolve(collect)
        self._options: dict[str, Any] = {"threads": threads, "timeout": time_limit(timeout)}
        self._buffers: Buffers | None = None
        if buffers is not None:
            self._buffers = Buffers(buffers, buffer_rule, self._collector.beside, **self._options)
        self.check_state_every = count(self, "check_state_every", check_state_every)
        self.on_state_mismatch = checked(on_state_mismatch)
        self._policy = as_policy(policy)
        self._enforcer = Enforcer(self._policy, ranks()[0])
        self._parameter_names = name_parameters(optimizer, named_parameters)
        self.rule.check(self._collector.workers_of(ranks()[1]))
        self._faults = Faults.from_environment()
        self._start(backward_passes_per_step)
        joining.watch(self)

    def _start(self, backward_passes_per_step: int) -> None:
        """Makes what belongs to this process; does not communicate."""
        self._should_synchronize = True
        self._enforcer.rank = ranks()[0]
        self._session: Session | None = None
        self._departures: Departures | None = None  # while gradients may leave during a backward pass
        self._terms: Any = None  # what the session's ranks agreed on; see `_agreed_terms`
        self._loss = SharedLoss(self._collector.beside, **self._options)
        self._hooks = Hooks()
        self._hooks.ready = _weakly(self._send_early)
        self.backward_passes_per_step = backward_passes_per_step
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
    def policy(self) -> Policy:
        """What follows from evidence; it may be replaced between steps, on all ranks alike.

        Who is excluded stays excluded.
        """
        return self._policy

    @policy.setter
    def policy(self, policy: Policy | Reaction | None) -> None:
        self._policy = self._enforcer.policy = as_policy(policy)

    @property
    def excluded(self) -> tuple[int, ...]:
        """Workers whose rows do not count, by the policy; they compute on, and the ledger judges them."""
        return self._enforcer.excluded

    @property
    def ledger(self) -> Ledger:
        """The verdicts per worker, added up; another ledger may take its place between steps."""
        return self._ledger

    @ledger.setter
    def ledger(self, ledger: Ledger | str | os.PathLike[str]) -> None:
        self._ledger = as_ledger(ledger, momentum=self._remembered.momentum is not None)
        if self._session is not None:
            check_owner(self._ledger, self)
            introduce(self._ledger, self._session, self.rule)

    @property
    def workers(self) -> range:
        """Indices of this rank's workers: its rank, but for a dedicated root, which has none."""
        return self._bind().workers

    @property
    def backward_passes_per_step(self) -> int:
        """How many backward passes add up to a worker's row; it may be set between steps."""
        return self._hooks.allowed

    @backward_passes_per_step.setter
    def backward_passes_per_step(self, passes: int) -> None:
        self._hooks.allowed = count("DistributedOptimizer", "backward_passes_per_step", passes, 1)

    def set_backward_passes_per_step(self, passes: int) -> None:
        """Sets `backward_passes_per_step`, by the name that Horovod's optimizer has for it."""
        self.backward_passes_per_step = passes

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FIXED and not hasattr(self.optimizer, name):
            raise AttributeError(
                f"{name} is an argument of DistributedOptimizer, and stays as it was given: call "
                f"remove_hooks(), and wrap the optimizer anew with {name}=..."
            )
        super().__setattr__(name, value)

    @uncompiled
    def zero_grad(self, *arguments: Any, **options: Any) -> None:
        """Clears the gradients, and forgets backward passes that were not used.

        A step that is computed and then skipped counts: a rank that skips one alone is named at the next.

        Args:
            arguments: what the wrapped optimizer's `zero_grad` takes, such as `set_to_none`.
            options: likewise.
        """
        self._refuse_to_drop("zero_grad()")
        self._hooks.discard()
        self.optimizer.zero_grad(*arguments, **options)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads the wrapped optimizer's state, saved with or without the wrapper."""
        self._refuse_to_drop("load_state_dict()")
        self._hooks.reset()
        self._remembered.load_state_dict(state_dict, sum(p.numel() for p in self._trained()))
        self.optimizer.load_state_dict(state_dict)

    def state_dict(self) -> dict[str, Any]:
        """The wrapped optimizer's state, which it can load; with momentum and what the rule remembers."""
        return {**self.optimizer.state_dict(), **self._remembered.state_dict()}

    def forget(self) -> None:
        """Lets momentum, and a rule that remembers, begin anew from zeros; on all ranks alike."""
        self._remembered.forget()

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
            PolicyStopError: if the policy stops the run; the gradients are this rank's own then.
            HeaderMismatchError, EquivocationError: as `Session.step`.
        """
        collected = self._aggregate()
        if collected.overflowed:
            self._rows.invalidate()
        return collected

    def _aggregate(self) -> Collected:
        session = self._bind()
        state = self._state_check(session)
        self._count_skipped(session)
        filled = self._rows.fill() if self._departures is None else self._departures.fill()
        rows = filled[: len(session.workers)]
        if self._buffers:
            self._buffers.read()
        wire = self.wire
        if self._rehearsal is not None:
            wire = self._rehearsal.begin(self.optimizer, session, rows, wire)
        with self._recovering(session):
            try:
                self.last = self._synchronizer(session).step(rows, wire, state=state)
            finally:
                if self._departures is not None:
                    self._departures.reset()
        self._rows.write(self.last.value)
        self._hooks.seal()
        return self.last

    def _count_skipped(self, session: Session) -> None:
        if all(session.layout.rows):  # a dedicated root computes nothing, so it cannot count what is skipped
            session.next_step += self._hooks.skipped - self._repeats(session)
        self._hooks.skipped, self._hooks.used_up = 0, False

    def _send_early(self, parameter: torch.Tensor) -> None:
        if self._departures is not None:
            self._departures.ready(parameter)

    def _begin_early(self) -> bool:
        """Opens the next step during a backward pass; False if it must not begin before `synchronize()`."""
        session = self._session
        if not isinstance(session, ShardedSession) or not self._is_bound(session):
            return False
        state = self._state_check(session)
        if state.due(session.next_step + self._hooks.skipped):  # a repair would change parameters in use
            return False
        self._count_skipped(session)
        synchronizer = self._synchronizer(session)
        with self._recovering(session), synchronizer.absences():
            session.open(self._rows.array(), synchronizer.counting)
        return True

    def _refuse_to_drop(self, what: str) -> None:
        if self._departures is not None:
            self._departures.refuse_to_drop(what)

    def _repeats(self, session: Session) -> bool:
        """Whether this step takes the last step's aggregate for this rank's gradients.

        It then has that step's number, so that a rank that steps twice alone is named at once.
        """
        again = self._hooks.used_up and session.next_step > 0
        gradients = (p.grad.to_dense() for p in self._parameters() if p.grad is not None)
        return again and any(bool(gradient.any()) for gradient in gradients)

    def _synchronizer(self, session: Session) -> Synchronizer:
        """Made at each step: rule and ledger may be replaced in between."""
        own = (self._buffers, self._enforcer, self._remembered)
        return Synchronizer(session, self.rule, self.ledger, *own)

    @contextmanager
    def _recovering(self, session: Session) -> Iterator[None]:
        """Elastic training goes on after a LateRanksError, whichever session was waiting.

        Ranks may have ended it a step apart, so all sessions bind anew.
        """
        try:
            with recorded(self.ledger, lambda: session.next_step):
                yield
        except LateRanksError:
            self.rebind()
            raise

    def _state_check(self, session: Session) -> StateCheck:
        return StateCheck(
            self._leaves,
            self.ledger,
            checked(self.on_state_mismatch),
            every=self.check_state_every,
            first=session.next_step,
            threads=session.threads,
        )

    def _leaves(self) -> Iterator[Leaf]:
        """What all ranks must share; buffers that are aggregated are replaced at every step anyway."""
        yield from leaves_of(self.optimizer, self._parameter_names)
        yield from self._remembered.last.leaves(self.rule)
        if self._buffers:
            yield from leaves_of_tensors(self._buffers.fixed.items(), "buffer")

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
        result = step_once(self) if closure is None else step_by(self, closure)
        self._hooks.end()
        return result

    def _apply(self) -> Any:
        if self._session is None:
            return self.optimizer.step()
        with self._session.pace.applying():
            return self.optimizer.step()

    @property
    def _overflowed(self) -> bool:
        return self.last is not None and self.last.overflowed

    def _share(self, loss: Any) -> Any:
        """The median of the workers' losses."""
        session = self._bind()
        with self._recovering(session), self._synchronizer(session).absences():
            return self._loss(loss)

    def _guarded(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        label = f"{type(self.optimizer).__name__}.{name}"
        return guarded(method, label, self._hooks, list(self._parameters()))

    def rebind(self) -> None:
        """Forgets the ranks; call it when Horovod was reset, as in elastic training.

        The next `synchronize()` agrees anew with the ranks that are there then, from step 0 on. The ledger
        stays, though worker i may be on another host from then on: begin a new one in its place. Where the
        policy acts on its test, that begins anew.
        """
        self._session = self._departures = None
        self._enforcer = Enforcer(self.policy, ranks()[0])  # worker i may be another one from here on
        if self.policy.acts_on_tests:  # a new rank has seen nothing, and all must decide alike
            self.ledger.forget_suspicion()
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
        """What the wrapped optimizer may step: also a layer that was frozen when its gradient was there."""
        return [p for p in self._parameters() if p.requires_grad or p.grad is not None]

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
        if session is not None and not session.is_current:  # initialised again
            self.rebind()
        elif session is not None:
            if self._is_bound(session):
                return session
            self._refuse_to_drop("to bind anew")
            start = session.next_step
        self._session = self._departures = (
            None  # if the ranks do not agree now, what was bound no longer fits the row
        )
        self._adopt()
        refuse_ddp(self._trained())
        before, self._rows = self._rows, self._flatten()
        self._remembered.follow(before, self._rows)
        check_owner(self.ledger, self)
        self._terms = self._own_terms()
        history = self.ledger.history if self.policy.acts_on_tests else ""
        places.runs_on(self._rows.tensors)
        with recorded(self.ledger, lambda: start):
            session = self._collector.bind(
                self._rows.d,
                self._rows.dtype,
                layout=f"{self._rows.layout} {self._terms[0]} {history}{self._remembered.label(self.rule)}",
                compression=self.compression,
                segments=self._rows.segments,
                start=start,
                **self._options,
            )
        if session.next_step == 0:  # all count anew, and a new rank knows of nothing that was skipped
            self._hooks.skipped = 0
        self.rule.check(session.n)
        session.when_bound(introducing(self, session), self.rule)
        session.when_bound(replicas.compare, self.rule)
        session.when_bound(self._remembered.begins_with(session), self.rule)
        self._session = session
        # Faults and momentum change a row before any part of it leaves.
        early = self._rehearsal is None and self._remembered.momentum is None
        if early and isinstance(session, ShardedSession) and session.overlap:
            self._departures = Departures(session, self._rows, _weakly(self._begin_early))
        return session

    def _is_bound(self, session: Session) -> bool:
        """Whether the parameters, and what the ranks agreed on, are those of the session."""
        return self._rows.fits(self._trained()) and self._terms == self._own_terms()

    def _own_terms(self) -> tuple[Any, ...]:
        """The policy's terms, and which ledger with which history it decides by, for this rank to compare."""
        terms = self.policy.terms(self.ledger)
        return (terms, id(self.ledger), self.ledger.loads) if self.policy.acts_on_tests else (terms,)

    def __reduce__(self) -> Any:
        # Not by __class__, which passes as the wrapped optimizer's.
        return _blank, (type(self),), self.__getstate__()

    def __getstate__(self) -> dict[str, Any]:
        self._adopt()
        names = [self._parameter_names[p] for p in self._parameters()]
        kept = {name: self.__dict__[name] for name in _KEPT}
        return {**kept, "names": names, "backward_passes_per_step": self.backward_passes_per_step}

    def __setstate__(self, state: dict[str, Any]) -> None:
        names, passes = state.pop("names"), state.pop("backward_passes_per_step")
        state.setdefault("_enforcer", Enforcer(state["_policy"]))  # 0.1.0 kept none
        state.setdefault("_remembered", Remembered())
        self.__dict__.update(state)
        self._pass_as_horovods()
        self._parameter_names, self.last = dict(zip(self._parameters(), names, strict=True)), None
        self._start(passes)

    def __repr__(self) -> str:
        return f"DistributedOptimizer(rule={self.rule!r}, collect={self._collector!r})\n{self.optimizer!r}"


def _weakly(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method, which does not keep its object alive: a dropped wrapper frees its parameters at once."""
    reference = weakref.WeakMethod(method)

    def call(*arguments: Any) -> Any:
        alive = reference()
        return None if alive is None else alive(*arguments)

    return call


def _blank(kind: type[DistributedOptimizer]) -> DistributedOptimizer:
    return kind.__new__(kind)
