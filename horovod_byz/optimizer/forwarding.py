"""A torch optimizer that is another one: reads, writes and deletions go to the wrapped optimizer."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any, ClassVar

import torch

from horovod_byz.optimizer.state import initialise

# Horovod's broadcast_optimizer_state knows its own optimizer by the module's name, and only then leaves out
# the step of the wrapper, which all ranks would have to take together.
_HOROVODS = "horovod.torch.optimizer"


def _forwarded(name: str) -> Callable[..., Any]:
    def method(self: ForwardingOptimizer, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.optimizer, name)(*args, **kwargs)

    method.__name__ = name
    method.__doc__ = f"Forwards to the wrapped optimizer's `{name}`."
    return method


class ForwardingOptimizer(torch.optim.Optimizer):
    """Passes as the wrapped optimizer's class and leaves all state in the wrapped optimizer.

    `torch.optim.Optimizer.__init__` is not called on purpose: it would make a second set of
    parameter groups, as Horovod's wrapper does, which loses state and `defaults`.

    An attribute belongs to the wrapper if its classes define it or list it in `_OWN`; every other is read,
    set and deleted in the wrapped optimizer, so that a switch reaches the code that reads it.

    Attributes:
        optimizer: the wrapped optimizer.
    """

    optimizer: torch.optim.Optimizer

    _OWN: ClassVar[frozenset[str]] = frozenset({"optimizer"})

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self._pass_as_horovods()

    def _pass_as_horovods(self) -> None:
        self.__dict__["__module__"] = _HOROVODS

    @property  # type: ignore[misc]  # mypy wants a setter, which would let a script change the class
    def __class__(self) -> type:
        """For `isinstance(optimizer, torch.optim.Adam)`, which holds for Horovod's optimizer too."""
        if "optimizer" not in self.__dict__:  # not there yet, while unpickling
            return type(self)
        wrapped: Any = type(self.optimizer)
        return _disguise(wrapped)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.optimizer.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self.optimizer.param_groups = groups

    @property
    def state(self) -> Any:
        return self.optimizer.state

    @state.setter
    def state(self, state: Any) -> None:
        self.optimizer.state = state

    @property
    def defaults(self) -> dict[str, Any]:
        return self.optimizer.defaults

    @defaults.setter
    def defaults(self, defaults: dict[str, Any]) -> None:
        self.optimizer.defaults = defaults

    def __getattr__(self, name: str) -> Any:
        if name == "optimizer":  # not there yet, while unpickling
            raise AttributeError(name)
        value = getattr(self.optimizer, name)
        if inspect.isroutine(value) or isinstance(value, functools.partial):
            return self._guarded(name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if self._owns(name):
            super().__setattr__(name, value)
        else:
            setattr(self.optimizer, name, value)

    def __delattr__(self, name: str) -> None:
        if self._owns(name):
            super().__delattr__(name)
        else:
            delattr(self.optimizer, name)

    @classmethod
    @lru_cache(maxsize=1024)
    def _owns(cls, name: str) -> bool:
        """Whether an attribute is the wrapper's own; torch's base class has none that is not forwarded."""
        ours = cls.__mro__[: cls.__mro__.index(torch.optim.Optimizer)]
        return any(name in kind.__dict__ or name in kind.__dict__.get("_OWN", ()) for kind in ours)

    def _guarded(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """What a method of the wrapped optimizer becomes, which this class does not know."""
        return method

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Gives the wrapped optimizer its initial state; no parameter moves.

        Subclasses step. This one is what `hvd.broadcast_optimizer_state` calls, as the step of Horovod's own
        wrapper's base class, on ranks whose optimizer has no state yet.
        """
        initialise(self.optimizer)

    state_dict = _forwarded("state_dict")
    load_state_dict = _forwarded("load_state_dict")
    zero_grad = _forwarded("zero_grad")
    add_param_group = _forwarded("add_param_group")
    register_step_pre_hook = _forwarded("register_step_pre_hook")
    register_step_post_hook = _forwarded("register_step_post_hook")
    register_state_dict_pre_hook = _forwarded("register_state_dict_pre_hook")
    register_state_dict_post_hook = _forwarded("register_state_dict_post_hook")
    register_load_state_dict_pre_hook = _forwarded("register_load_state_dict_pre_hook")
    register_load_state_dict_post_hook = _forwarded("register_load_state_dict_post_hook")


@lru_cache(maxsize=256)
def _disguise(wrapped: type[torch.optim.Optimizer]) -> type:
    """A subclass of the wrapped optimizer's class whose next class in line is `ForwardingOptimizer`.

    So `super(optimizer.__class__, optimizer).step` is that class's, as Horovod expects of its own wrapper.
    """
    return type(wrapped.__name__, (ForwardingOptimizer, wrapped), {"__module__": _HOROVODS})
