"""Reads quantities with units: 11.2M parameters, 10Gbit, 1.25GB/s, 0.4s, 64GiB."""

from __future__ import annotations

import math
import re

__all__ = ["bandwidth", "number", "seconds", "size"]

_NUMBER = re.compile(r"([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z/]*)")
_COUNTS = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12}
_PREFIXES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
_BYTES = {f"{prefix}B": scale for prefix, scale in (_PREFIXES | _BINARY).items()}
_BITS = {f"{prefix}{bit}": scale / 8 for prefix, scale in _PREFIXES.items() for bit in ("bit", "bps", "b")}
_RATES = {**_BYTES, **_BITS}
_SECONDS = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "min": 60.0}


def number(text: str, what: str, most: int = 10**13) -> int:
    """A count, such as 11.2M, 1e7 or 45.

    Raises:
        ValueError: if it is none, below 1, or above `most`.
    """
    value = _read(text, what, _COUNTS, "such as 11200000, 11.2M or 1.12e7")
    if value < 1 or value != round(value):
        raise ValueError(f"{what} must be a whole number of at least 1, got {text!r}: such as 11.2M or 1e7")
    if value > most:
        raise ValueError(f"{what} may be {most:,} at most, got {text!r}: the model does not reach further")
    return round(value)


def bandwidth(text: str, what: str = "--bandwidth") -> float:
    """Bytes per second, of 10Gbit, 10Gbit/s or 1.25GB/s.

    Raises:
        ValueError: if it has no unit, or is not over 0.
    """
    rates = {**_RATES, **{f"{unit}/s": scale for unit, scale in _RATES.items()}}
    return _positive(text, what, rates, "with its unit, such as 10Gbit or 1.25GB/s")


def size(text: str, what: str = "--memory") -> float:
    """Bytes, of 64GiB or 64GB.

    Raises:
        ValueError: if it has no unit, or is not over 0.
    """
    return _positive(text, what, _BYTES, "with its unit, such as 64GiB or 64GB")


def seconds(text: str, what: str = "--compute") -> float:
    """Seconds, of 0.4, 0.4s or 400ms.

    Raises:
        ValueError: if it is none, or not over 0.
    """
    return _positive(text, what, _SECONDS, "such as 0.4s or 400ms")


def _positive(text: str, what: str, units: dict[str, float], example: str) -> float:
    value = _read(text, what, units, example)
    if value <= 0:
        raise ValueError(f"{what} must be over 0, got {text!r}: give it {example}")
    return value


def _read(text: str, what: str, units: dict[str, float], example: str) -> float:
    match = _NUMBER.fullmatch(text.strip())
    unit = match[2] if match else ""
    if match is None or unit not in units:
        raise ValueError(f"{what}={text!r} cannot be read: give it {example}")
    value = float(match[1]) * units[unit]
    if not math.isfinite(value):
        raise ValueError(f"{what}={text!r} is too large: give it {example}")
    # 11.2 x 10^6 is no whole number of float64 by itself.
    return round(value) if abs(value - round(value)) < 1e-6 * max(1.0, value) and value >= 1 else value
