"""Methods that `torch.compile` leaves as they are: they communicate, and call code that it cannot read."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])


def uncompiled(method: F) -> F:
    """As `torch.compiler.disable`, which imports the compiler; here only where it was imported already.

    Code that is being compiled has the compiler imported, so nothing is missed.
    """
    disabled: list[Callable[..., Any]] = []

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not disabled:
            import torch

            disabled.append(torch.compiler.disable(method))
        return disabled[0](*args, **kwargs)

    return cast(F, call)
