"""Methods of a wrapped optimizer that step under another name, such as `first_step` and `second_step`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from horovod_byz.optimizer.hooks import Hooks
from horovod_byz.optimizer.state import digest_of


def guarded(
    method: Callable[..., Any], label: str, hooks: Hooks, parameters: Sequence[torch.Tensor]
) -> Callable[..., Any]:
    """The method, which may move parameters by aggregated gradients only.

    Without gradients at hand it may do what it likes, such as swap in averaged parameters.

    Args:
        method: the wrapped optimizer's method.
        label: its name for the error.
        hooks: knows whether the gradients are those of this rank or an aggregate.
        parameters: the parameters to watch.

    Raises:
        RuntimeError: when the method has moved parameters by this rank's own gradients.
    """

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not (hooks.pending or hooks.sealed):
            return method(*args, **kwargs)
        before = digest_of(parameters)
        result = method(*args, **kwargs)
        if digest_of(parameters) == before:
            return result
        if hooks.pending:
            raise RuntimeError(
                f"{label}() moved parameters by gradients that were not aggregated: call "
                f"optimizer.synchronize() before {method.__name__}()"
            )
        hooks.reset()  # the aggregate is used up
        return result

    return call
