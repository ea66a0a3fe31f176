"""Checks of parameters; the errors name the parameter, the allowed values and the given one."""

from __future__ import annotations

import math
import numbers
import operator
from typing import Any

import numpy as np


def count(owner: object, name: str, value: Any, least: int = 0) -> int:
    """Checks that a parameter is a whole number of at least `least`, and returns it as an int.

    Args:
        owner: the object with the parameter, or its name, for the message.
        name: the parameter.
        value: the given value.
        least: the smallest number allowed.

    Raises:
        TypeError, ValueError: if it is not.
    """
    kind = owner if isinstance(owner, str) else type(owner).__name__
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{kind}: {name} must be a whole number >= {least}, got {value!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{kind}: {name} must be a whole number >= {least}, got {value!r}") from None
    if number < least:
        raise ValueError(f"{kind}: {name} must be >= {least}, got {number}")
    return number


def flag(owner: object, name: str, value: Any) -> bool:
    """Checks that a parameter is True or False, and returns it; bool("false") would be True."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{type(owner).__name__}: {name} must be True or False, got {value!r}")
    return bool(value)


def positive(owner: object, name: str, value: Any, most: float = math.inf) -> float:
    """Checks that a parameter is a finite number over 0 and at most `most`, and returns it as a float.

    Args:
        owner: the object with the parameter, for the message.
        name: the parameter.
        value: the given value.
        most: the largest number allowed.

    Raises:
        TypeError, ValueError: if it is not.
    """
    kind, bound = type(owner).__name__, "" if math.isinf(most) else f" and at most {most:g}"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{kind}: {name} must be a number over 0{bound}, got {value!r}")
    if not 0 < float(value) <= most or math.isinf(float(value)):
        raise ValueError(f"{kind}: {name} must be a finite number over 0{bound}, got {value!r}")
    return float(value)


def fraction(owner: object, name: str, value: Any) -> float:
    """Checks that a parameter is a number of at least 0 and below 1, and returns it."""
    kind = type(owner).__name__
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{kind}: {name} must be a number of at least 0 and below 1, got {value!r}")
    if not 0 <= float(value) < 1:
        raise ValueError(f"{kind}: {name} must be at least 0 and below 1, got {value!r}")
    return float(value)
