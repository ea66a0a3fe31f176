"""Checks of parameters, with errors that say what, where and what was got."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np


def count(owner: object, name: str, value: Any, least: int = 0) -> int:
    """Checks that a parameter is a whole number of at least `least`, and returns it as an int."""
    kind = type(owner).__name__
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{kind}: {name} must be a whole number >= {least}, got {value!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{kind}: {name} must be a whole number >= {least}, got {value!r}") from None
    if number < least:
        raise ValueError(f"{kind}: {name} must be >= {least}, got {number}")
    return number
