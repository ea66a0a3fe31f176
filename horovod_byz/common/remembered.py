"""Results of pure functions of values, kept for the next call with equal ones."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def remembered(most: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Like `functools.lru_cache`, but arguments without a hash are computed each time.

    A user's rule inside a rule of this library may have an option without a hash, such as a list.

    Args:
        most: number of results that are kept.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        cached = lru_cache(maxsize=most)(function)

        @wraps(function)
        def call(*args: P.args, **more: P.kwargs) -> T:
            try:
                hash(args)
            except TypeError:
                return function(*args, **more)
            hashable: tuple[Hashable, ...] = args
            return cached(*hashable, **more)  # type: ignore[arg-type]

        return call

    return decorate
