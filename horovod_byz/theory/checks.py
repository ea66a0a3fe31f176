"""Argument checks shared by the calculators."""

from __future__ import annotations


def counts(n: int, f: int, what: str) -> None:
    """Checks that n and f are integers with 0 <= f <= n and n >= 1.

    Raises:
        ValueError: if they are not.
    """
    for label, value in (("n", n), ("f", f)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{what}: {label} must be an integer, got {value!r}")
    if n < 1 or not 0 <= f <= n:
        raise ValueError(f"{what} needs n >= 1 and 0 <= f <= n, got n = {n}, f = {f}")


def positive(value: float, what: str) -> float:
    """Returns `value` if it is > 0.

    Raises:
        ValueError: if it is not.
    """
    if not value > 0:
        raise ValueError(f"{what} must be > 0, got {value!r}")
    return value


def probability(value: float, what: str) -> float:
    """Returns `value` if 0 < value < 1.

    Raises:
        ValueError: if it is not.
    """
    if not 0 < value < 1:
        raise ValueError(f"{what} must lie between 0 and 1, got {value!r}")
    return value
