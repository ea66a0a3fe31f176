"""Removable hooks that count backward passes, and the record of which parameters are wrapped."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils.weak import WeakIdKeyDictionary

# Parameter -> weak reference to its Hooks: a wrapper that is dropped frees its parameters.
_OWNERS: Any = WeakIdKeyDictionary()


class Hooks:
    """Guards the parameters of one optimizer wrapper.

    Args:
        allowed: how many backward passes a step may have.

    Attributes:
        sealed: whether the gradients are an aggregate, to which no backward pass may add.
        skipped: steps that this rank computed and did not take since the last aggregation.
        used_up: whether a step took the gradients, and they were neither computed nor cleared since.
        ready: called with each parameter whose gradient is complete, after the last of its backward passes.
    """

    ready: Callable[[torch.Tensor], None] | None = None

    def __init__(self, allowed: int = 1) -> None:
        self.allowed, self.sealed, self.skipped = allowed, False, 0
        self.used_up = self._counts = False
        self._passes: Counter[int] = Counter()
        self._names: dict[int, str] = {}
        self._handles: dict[int, Any] = {}

    def attach(self, names: Mapping[torch.Tensor, str]) -> None:
        """Hooks the parameters that are not hooked yet.

        Raises:
            ValueError: if another wrapper has one of them.
        """
        for parameter, name in names.items():
            owner = _OWNERS[parameter]() if parameter in _OWNERS else None
            if owner not in (None, self):
                raise ValueError(
                    f"parameter {name} already belongs to a DistributedOptimizer: use that one, or call its "
                    "remove_hooks() first"
                )
        for parameter, name in names.items():
            if id(parameter) not in self._handles and parameter.requires_grad:
                _OWNERS[parameter] = weakref.ref(self)
                self._names[id(parameter)] = name
                self._handles[id(parameter)] = parameter.register_post_accumulate_grad_hook(_counting(self))

    @property
    def attached(self) -> bool:
        """Whether a parameter has a hook."""
        return bool(self._handles)

    def remove(self) -> None:
        """Removes all hooks and frees the parameters."""
        for handle in self._handles.values():
            handle.remove()
        self._handles.clear()
        for parameter in [p for p, owner in _OWNERS.items() if owner() is self]:
            del _OWNERS[parameter]

    @property
    def pending(self) -> bool:
        """Whether gradients were computed that were not aggregated yet."""
        return bool(self._passes)

    def reset(self) -> None:
        """Starts a new step."""
        self._passes.clear()
        self.sealed = False

    def end(self) -> None:
        """Ends a step. Scripts that set gradients without a backward pass do not show when they are new."""
        self.reset()
        self.used_up = self._counts

    def discard(self) -> None:
        """Starts a new step; where all backward passes of the last were done and not used, it was skipped."""
        self.used_up = False
        if not self.sealed and max(self._passes.values(), default=0) >= self.allowed:
            self.skipped += 1
        self.reset()

    def seal(self) -> None:
        """Marks the gradients as aggregated."""
        self._passes.clear()
        self.sealed = True

    def _count(self, parameter: torch.Tensor) -> None:
        name = self._names.get(id(parameter), "?")
        if self.sealed:
            raise RuntimeError(
                f"a gradient of {name} was computed between synchronize() and step(): it would be added to "
                "the aggregate of all workers; call step() or zero_grad() first"
            )
        self.used_up, self._counts = False, True
        self._passes[id(parameter)] += 1
        if self._passes[id(parameter)] > self.allowed:
            raise RuntimeError(
                f"gradients of {name} were computed more than backward_passes_per_step = {self.allowed} "
                "times before step(): call step() or zero_grad() between them, or raise "
                "backward_passes_per_step to accumulate gradients"
            )
        if self.ready is not None and self._passes[id(parameter)] == self.allowed:
            self.ready(parameter)


def _counting(hooks: Hooks) -> Callable[[torch.Tensor], None]:
    # Weak, because the hook lives as long as the parameter and must not keep the wrapper alive.
    reference = weakref.ref(hooks)

    def hook(parameter: torch.Tensor) -> None:
        owner = reference()
        if owner is not None:
            owner._count(parameter)

    return hook
