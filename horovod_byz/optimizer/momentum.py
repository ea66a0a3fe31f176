"""Momentum of the workers: each sends a running mean of its gradients, which leaves attacks less noise."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from horovod_byz.collect import Collected, Session, matching
from horovod_byz.common.checks import fraction

if TYPE_CHECKING:
    from horovod_byz.aggregation.source import Groups
    from horovod_byz.optimizer.scaling import LossScale

__all__ = ["WorkerMomentum", "moved", "worker_momentum"]

Array = npt.NDArray[Any]
_BLOCK = 2**14  # coordinates at a time, which stay in a core's cache
_KEY = "worker_momentum"


class WorkerMomentum:
    """The momentum of a rank's workers: m_t = beta m_(t-1) + (1 - beta) g_t, from m_(-1) = 0.

    A step has two halves, as in `Synchronizer`: `sent` computes m_t, which the worker sends, and `keep` makes
    it the momentum once the step is certain. A step that fails, or is left out because of an overflow, leaves
    the momentum as it was, and so does a gradient that holds NaN or infinities, which is sent as it is.
    Values below the smallest normal number become 0: a gradient that stays 0 would else end in denormal
    numbers, which are slow.

    Every operation is rounded by itself, so that replicas of one gradient have the same bits on any machine.
    Where a replica lost a vote, it gets the momentum of its group's majority; see `heal`.

    Args:
        beta: the factor, over 0 and below 1.

    Attributes:
        rows: (k, d) momentum of this rank's workers; None before the first step.

    Reference:
        El Mhamdi, Guerraoui, Rouault (2021), Distributed momentum for Byzantine-resilient SGD; Karimireddy,
        He, Jaggi (2021), Learning from history for Byzantine robust optimization, Algorithm 2.
    """

    def __init__(self, beta: float) -> None:
        self.beta = beta
        self.rows: Array | None = None
        self._workers: list[int] = []  # whose rows they are
        self._next: Array | None = None
        self._finite: list[bool] = []
        self._lost: Counter[int] = Counter()  # votes that a worker lost in a row

    def sent(self, gradients: Any, workers: Sequence[int]) -> Array:
        """The momentum after these gradients, (k, d), for sending; valid until the next call.

        Args:
            gradients: (k, d), of this rank's workers.
            workers: who they are. Another worker's momentum, from a checkpoint of another rank, is not used.
        """
        array: Array = np.asarray(gradients)
        fits = self.rows is not None and self.rows.shape == array.shape and self.rows.dtype == array.dtype
        if not fits or self._workers != list(workers):
            self.rows = None
        if self._next is None or self._next.shape != array.shape or self._next.dtype != array.dtype:
            self._next = np.empty_like(array)
        held = [None] * len(array) if self.rows is None else list(self.rows)
        self._finite = [
            _advance(before, row, self.beta, out)
            for before, row, out in zip(held, array, self._next, strict=True)
        ]
        return self._next

    def heal(self, session: Session, collected: Collected, groups: Groups | None) -> None:
        """Gives replicas that lost a vote their group's momentum; all ranks call it after a step's rows.

        A fault that is over would else leave a replica with other bits for hundreds of steps, in each of
        which it would be outvoted. After the first, second, fourth, eighth lost vote in a row, so that a
        worker that lies for good costs little.
        """
        outvoted = [] if groups is None else [int(worker) for worker in collected.outcome.outvoted]
        self._lost = Counter({worker: self._lost[worker] + 1 for worker in outvoted})
        due = [worker for worker, votes in self._lost.items() if votes & (votes - 1) == 0]
        if due and groups is not None and self._next is not None and not collected.overflowed:
            matching.bring_majority(
                session.transport, session.layout, self._next, groups, due, collected.step
            )
            self._finite = [bool(np.isfinite(row).all()) for row in self._next]

    def keep(self, session: Session, collected: Collected) -> None:
        """Makes what was sent last the momentum."""
        if self._next is None or collected.overflowed:
            return
        before = self.rows
        for place, finite in enumerate(self._finite):
            if not finite:
                self._next[place] = 0 if before is None else before[place]
        self.rows, self._next = self._next, before
        self._workers = list(session.workers)

    def begin(self, session: Session, rule: Any) -> None:
        """Agrees with the other ranks on whether momentum goes on. All call it when they are bound.

        It goes on if every worker has its own and replicas have the same; else all begin with zeros, as when
        a rank is new, or when all have loaded the checkpoint of one.
        """
        if self._workers != list(session.workers):
            self.rows = None
        self._lost.clear()
        redundancy = getattr(rule, "redundancy", None)
        groups: Sequence[Sequence[int]] = () if redundancy is None else redundancy.groups_of(session.n)
        if not matching.all_match(session.transport, session.layout, self.rows, groups):
            self.rows = None

    def follow(self, before: Sequence[torch.Tensor], after: Sequence[torch.Tensor], dtype: Any) -> None:
        """Takes over the momentum of the parameters that stay, where a row is made up of others from now on.

        Args:
            before: the parameters in the order of the rows.
            after: those of the rows to come; the momentum of a new one is 0.
            dtype: of the rows to come.
        """
        if self.rows is None:
            return
        self.rows = moved(self.rows, before, after, dtype)

    def refuse(self, scale: LossScale) -> None:
        """Refuses gradients that a GradScaler had scaled when they were aggregated.

        Raises:
            RuntimeError: if they were; the scale changes between steps, and momentum would mix the scales.
        """
        if scale.scales:
            raise RuntimeError(
                "optimizer.synchronize() got scaled gradients, and worker_momentum would mix the scales of "
                "several steps: call scaler.unscale_(optimizer) before synchronize(), or leave it out"
            )

    def gathered(self, session: Session) -> torch.Tensor | None:
        """The momentum of all workers, (n, d), on rank 0; None elsewhere. All ranks call it together."""
        transport, layout = session.transport, session.layout
        rows = self.rows
        if rows is None:
            rows = np.zeros((len(session.workers), session.d), session.dtype)
        everyone = np.empty((layout.n, session.d), rows.dtype) if transport.rank == 0 else None
        transport.gather(rows, everyone, layout)
        return None if everyone is None else torch.from_numpy(everyone)

    def take_up(self, everyone: torch.Tensor, session: Session) -> None:
        """Continues from what `gathered` gave."""
        self._workers = list(session.workers)
        self.rows, self._next = everyone[self._workers].numpy().copy(), None

    def state_dict(self) -> dict[str, Any]:
        """A copy of the momentum and whose it is, for a checkpoint of this rank; empty before any step."""
        if self.rows is None:
            return {}
        return {_KEY: {"workers": [*self._workers], "rows": torch.from_numpy(self.rows.copy())}}

    def load_state_dict(self, state: Mapping[str, Any], d: int) -> None:
        """Takes over what `state_dict` gave; zeros if there is none. `begin` decides whether it is used.

        Args:
            state: the optimizer's state.
            d: number of coordinates of a row.

        Raises:
            ValueError: if it is no momentum of rows of d finite numbers.
        """
        saved = state.get(_KEY)
        self.rows, self._workers, self._next = None, [], None
        if saved is None:
            return
        rows, workers = (saved.get("rows"), saved.get("workers")) if isinstance(saved, Mapping) else (0, 0)
        if not isinstance(rows, torch.Tensor) or not isinstance(workers, list) or rows.dim() != 2:
            raise ValueError(
                f"{_KEY} in the state_dict must hold workers and rows, got {type(saved).__name__}"
            )
        if rows.shape != (len(workers), d):
            raise ValueError(
                f"{_KEY} in the state_dict has the shape {tuple(rows.shape)}, and the optimizer's parameters "
                f"make rows of d = {d}: load the state of the same parameters, or delete the entry"
            )
        if not bool(torch.isfinite(rows).all()):
            raise ValueError(f"{_KEY} in the state_dict holds NaN or infinities: delete the entry")
        self.rows, self._workers = rows.detach().cpu().numpy().copy(), [*workers]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_next": None, "_finite": []}


def worker_momentum(owner: object, beta: Any, optimizer: torch.optim.Optimizer) -> WorkerMomentum | None:
    """The momentum for an option `worker_momentum`; None for 0.

    Raises:
        TypeError, ValueError: unless beta is a number of at least 0 and below 1, and the optimizer looks at
            the gradients of one point in a step.
    """
    checked = fraction(owner, "worker_momentum", beta)
    if checked and isinstance(optimizer, torch.optim.LBFGS):
        raise ValueError(
            f"{type(owner).__name__}: worker_momentum={beta!r} does not go with LBFGS, which compares "
            "gradients of several points in a step: leave it out, or take another optimizer"
        )
    return WorkerMomentum(checked) if checked else None


def moved(
    rows: Array, before: Sequence[torch.Tensor], after: Sequence[torch.Tensor], dtype: Any
) -> Array | None:
    """Rows over some tensors as rows over others: zeros for those that are new; None if there are none.

    Args:
        rows: (k, numbers in `before`).
        before: the tensors in the order of the rows.
        after: those of the rows to come.
        dtype: of the rows to come.
    """
    ends = [*itertools.accumulate((tensor.numel() for tensor in before), initial=0)]
    at = {
        id(tensor): rows[:, begin:end]
        for tensor, (begin, end) in zip(before, itertools.pairwise(ends), strict=True)
    }
    parts = []
    for tensor in after:
        part, shape = at.get(id(tensor)), (len(rows), tensor.numel())
        parts.append(part if part is not None and part.shape == shape else np.zeros(shape, dtype))
    return np.concatenate([part.astype(dtype) for part in parts], 1) if parts else None


def _advance(before: Array | None, gradient: Array, beta: float, out: Array) -> bool:
    """Writes one worker's next momentum to `out`; returns whether all of it is finite."""
    kind = out.dtype.type
    old, new, least, finite = kind(beta), kind(1.0 - beta), np.finfo(out.dtype).tiny, True
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        for begin in range(0, out.size, _BLOCK):
            part = slice(begin, begin + _BLOCK)
            np.multiply(gradient[part], new, out=out[part])
            out[part] += 0 if before is None else before[part] * old
            finite = finite and bool(np.isfinite(out[part]).all())
            out[part] *= np.abs(out[part]) >= least
    return finite
