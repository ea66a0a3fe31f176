"""A torch optimizer that is another one: everything is forwarded, nothing copied."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def _forwarded(name: str) -> Callable[..., Any]:
    def method(self: ForwardingOptimizer, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.optimizer, name)(*args, **kwargs)

    method.__name__ = name
    method.__doc__ = f"Forwards to the wrapped optimizer's `{name}`."
    return method


class ForwardingOptimizer(torch.optim.Optimizer):
    """Passes as a torch optimizer (schedulers check) and leaves all state in the wrapped one.

    `torch.optim.Optimizer.__init__` is not called on purpose: it would make a second set of
    parameter groups, as Horovod's wrapper does, which loses state and `defaults`.

    Attributes:
        optimizer: the wrapped optimizer.
    """

    optimizer: torch.optim.Optimizer

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

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
        return getattr(self.optimizer, name)

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
