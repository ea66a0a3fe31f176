"""One step from this rank's rows to the aggregate of all workers: gradients, buffers, ledger."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from horovod_byz.collect import Collected, LateRanksError, Session, Wire
from horovod_byz.ledger.hearing import hearing

if TYPE_CHECKING:
    from horovod_byz.aggregation.source import Groups
    from horovod_byz.ledger.enforcement import Enforcer
    from horovod_byz.optimizer.buffers import Buffers
    from horovod_byz.optimizer.momentum import WorkerMomentum
    from horovod_byz.optimizer.remembered import Remembered
    from horovod_byz.rules import Rule


class KeepsLedger(Protocol):
    """What a step is entered in: a `Ledger`, or a `GroundTruth` where it is known who is Byzantine."""

    def add(self, result: Any, step: int | None = None, groups: Groups | None = None) -> None: ...

    def absent(self, workers: Any, step: int | None = None) -> None: ...


@dataclass(frozen=True)
class Synchronizer:
    """What `DistributedOptimizer` (one row a rank) and the trainer (k rows) both do at a step.

    A step has two halves. `collect` waits for other ranks and may fail; it changes neither model nor ledger.
    `settle` waits for nobody. A caller that must be interruptible calls them separately; others call `step`.

    Args:
        session: collects and aggregates the rows.
        rule: the aggregation rule.
        ledger: gets each step's verdicts, and who was late.
        buffers: model buffers that are aggregated at each step, or None. The caller reads them
            (`Buffers.read`).
        enforcer: carries out a policy; None for none. Excluded workers' rows and buffers do not count.
        remembered: momentum of this rank's workers, who then send it in place of their gradients, and the
            last result, for rules that start from it; None for neither.
    """

    session: Session
    rule: Rule
    ledger: KeepsLedger
    buffers: Buffers | None = None
    enforcer: Enforcer | None = None
    remembered: Remembered | None = None

    def step(
        self,
        rows: Any,
        wire: Wire | None = None,
        *,
        step: int | None = None,
        state: bytes | Callable[[int], bytes] = b"",
    ) -> Collected:
        """Aggregates rows and buffers; writes the buffers, and enters the verdicts in the ledger.

        Args:
            rows: `(k, d)`, the gradients of this rank's workers.
            wire: what happens to the collected rows before they are aggregated: a simulated attack, or in
                tests a fault. Rows are tampered with on purpose here, and by a rehearsal's faults before they
                get here.
            step: number of the step; default the session's next.
            state: a digest of what all ranks must share; see `Session.step`.

        Raises:
            LateRanksError, HeaderMismatchError, EquivocationError: as `Session.step`; late workers are
            entered.
        """
        collected = self.collect(rows, wire, step=step, state=state)
        self.settle(collected)
        return collected

    def collect(
        self,
        rows: Any,
        wire: Wire | None = None,
        *,
        step: int | None = None,
        state: bytes | Callable[[int], bytes] = b"",
    ) -> Collected:
        """The first half of `step`, with the same arguments."""
        with self.absences():
            # Functions, called again where ranks are bound anew in the middle of the step and forget.
            sent, memory, momentum = rows, None, self._momentum
            if momentum is not None:
                sent = functools.partial(momentum.sent, rows, self.session.workers)
            if self.remembered is not None and self.rule.remembers:
                memory = functools.partial(self.remembered.last.for_rows, self.session)
            collected = self.session.step(sent, self.counting, wire, step, state, memory)
            if momentum is not None:
                momentum.heal(self.session, collected, self._groups)
            if self.buffers is not None:
                self.buffers.collect(step, collected.excluded)
        return collected

    @property
    def counting(self) -> Rule:
        """The rule over the workers whose rows count."""
        return self.rule if self.enforcer is None else self.enforcer.restricted(self.rule)

    def settle(self, collected: Collected) -> None:
        """The second half: enters the verdicts, acts on them, and writes the buffers' aggregate.

        Raises:
            PolicyStopError: if the policy stops the run; on all ranks.
        """
        groups = self._groups
        if self.enforcer is None:
            self.ledger.add(collected, collected.step, groups)
        else:
            with hearing(self.ledger) as evidence:
                self.ledger.add(collected, collected.step, groups)
            rules = (self.rule, *(self.buffers.rules if self.buffers is not None else ()))
            self.enforcer.settled(collected, evidence, rules, groups, self.ledger)
        if self.remembered is not None:
            self.remembered.last.keep(self.rule, collected)
        if self._momentum is not None:
            self._momentum.keep(self.session, collected)
        if self.buffers is not None:  # last: where the policy stops the run, the model stays as it was
            self.buffers.write()

    @property
    def _momentum(self) -> WorkerMomentum | None:
        return None if self.remembered is None else self.remembered.momentum

    @property
    def _groups(self) -> Groups | None:
        redundancy = getattr(self.rule, "redundancy", None)
        return None if redundancy is None else redundancy.groups_of(self.session.n)

    @contextmanager
    def absences(self) -> Iterator[None]:
        """Enters the workers of late ranks in the ledger, whichever session was waiting."""
        try:
            yield
        except LateRanksError as error:
            late = [worker for rank in error.certain for worker in self.session.layout.workers(rank)]
            self.ledger.absent(late, self.session.next_step)
            if self.enforcer is not None:
                self.enforcer.late(error.certain, self.ledger)
            raise
