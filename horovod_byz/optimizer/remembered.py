"""What is remembered between steps beside the wrapped optimizer's state: momentum, and the last result."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from horovod_byz.collect import Collected, Session, digest
from horovod_byz.optimizer.leaves import Leaf, TensorLeaf
from horovod_byz.optimizer.momentum import WorkerMomentum, moved

if TYPE_CHECKING:
    from collections.abc import Callable

    from horovod_byz.collect.protocol import Transport
    from horovod_byz.optimizer.rows import FlatRows
    from horovod_byz.rules import Rule

__all__ = ["LastResult", "Remembered"]

_KEY = "last_aggregate"


class LastResult:
    """The last aggregate, from which a rule that remembers starts; it is the same on all ranks.

    An aggregate is finite, and a step that is left out because of an overflow has none.

    Attributes:
        value: (d,); None before the first step, which counts as zeros.
    """

    def __init__(self) -> None:
        self.value: npt.NDArray[Any] | None = None

    def for_rows(self, session: Session) -> npt.NDArray[Any] | None:
        """The value, if it is of such rows."""
        fits = self.value is not None and (self.value.shape, self.value.dtype) == (
            (session.d,),
            session.dtype,
        )
        return self.value if fits else None

    def keep(self, rule: Rule, collected: Collected) -> None:
        """Takes over a step's result, if the rule remembers."""
        if not rule.remembers or collected.overflowed:
            return
        if self.value is None or self.value.shape != collected.value.shape:
            self.value = np.empty_like(collected.value)
        self.value[:] = collected.value

    def begin(self, transport: Transport, rule: Rule) -> None:
        """Agrees with the other ranks when they are bound: unless all hold the same, all begin with zeros."""
        if not rule.remembers:
            return
        own = bytes(digest.SIZE) if self.value is None else digest.digest(self.value)
        said = transport.exchange(np.frombuffer(own, np.uint8), "comparison of the last result")
        if len({row.tobytes() for row in said}) > 1:
            self.value = None

    def leaves(self, rule: Rule) -> Iterator[Leaf]:
        """It as a part of the state that ranks compare."""
        if rule.remembers and self.value is not None:
            yield TensorLeaf("last aggregate of the rule", "state", torch.from_numpy(self.value))

    def state_dict(self) -> dict[str, Any]:
        """A copy for a checkpoint; empty before the first step of a rule that remembers."""
        return {} if self.value is None else {_KEY: torch.from_numpy(self.value.copy())}

    def load_state_dict(self, state: Mapping[str, Any], d: int) -> None:
        """Takes over what `state_dict` gave, or zeros.

        Raises:
            ValueError: unless it holds d finite numbers.
        """
        saved = state.get(_KEY)
        if saved is None:
            self.value = None
            return
        if not isinstance(saved, torch.Tensor) or saved.shape != (d,):
            shape = tuple(saved.shape) if isinstance(saved, torch.Tensor) else type(saved).__name__
            raise ValueError(
                f"{_KEY} in the state_dict must hold d = {d} numbers, got {shape}: load the state of the "
                "same parameters, or delete the entry"
            )
        if not bool(torch.isfinite(saved).all()):
            raise ValueError(f"{_KEY} in the state_dict holds NaN or infinities: delete the entry")
        self.value = saved.detach().cpu().numpy().copy()


class Remembered:
    """Momentum of the workers and the last result, as one state of an optimizer.

    Args:
        momentum: of this rank's workers; None for none.

    Attributes:
        momentum: likewise.
        last: the last result.
    """

    def __init__(self, momentum: WorkerMomentum | None = None) -> None:
        self.momentum, self.last = momentum, LastResult()

    def label(self, rule: Rule) -> str:
        """What all ranks must share of it, in words; empty where nothing is remembered."""
        beta = "" if self.momentum is None else f" worker_momentum {self.momentum.beta!r}"
        return beta + (" remembers" if rule.remembers else "")

    def follow(self, before: FlatRows, after: FlatRows) -> None:
        """Takes along the parts of the parameters that stay, where rows are made up of others from now on."""
        if self.momentum is not None:
            self.momentum.follow(before.tensors, after.tensors, after.dtype)
        if self.last.value is not None:
            value = moved(self.last.value[None], before.tensors, after.tensors, after.dtype)
            self.last.value = None if value is None else np.ascontiguousarray(value[0])

    def begins_with(self, session: Session) -> Callable[[Transport, Rule], None]:
        """What a session calls at each agreement: all ranks compare what they remember."""
        # Weak: the session has this function.
        bound = weakref.ref(session)

        def action(transport: Transport, rule: Rule) -> None:
            agreed = bound()
            if agreed is not None and self.momentum is not None:
                self.momentum.begin(agreed, rule)
            self.last.begin(transport, rule)

        return action

    def forget(self) -> None:
        """Begins anew with zeros."""
        if self.momentum is not None:
            self.momentum.rows = None
        self.last.value = None

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        own = {} if self.momentum is None else self.momentum.state_dict()
        return {**own, **self.last.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any], d: int) -> None:
        """Takes over what `state_dict` gave, for rows of d coordinates.

        Raises:
            ValueError: if it does not fit.
        """
        if self.momentum is not None:
            self.momentum.load_state_dict(state, d)
        self.last.load_state_dict(state, d)
