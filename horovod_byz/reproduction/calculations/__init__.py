"""Artefacts without training runs: theory checks, timings and estimates on synthetic data, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from horovod_byz.common.words import known
from horovod_byz.reproduction.calculations import estimation, timing, toys, votes
from horovod_byz.reproduction.calculations import resilience as resilience_checks
from horovod_byz.training.config import ConfigError

__all__ = ["CALCULATIONS", "by_name"]

Calculation = Callable[[], dict[str, Any]]
CALCULATIONS: dict[str, Calculation] = {
    "toys": toys.calculate,
    "votes": votes.calculate,
    "resilience": resilience_checks.calculate,
    "complexity": timing.complexity,
    "runtime": timing.runtime,
    "mean-estimation": estimation.calculate,
}


def by_name(name: str) -> Calculation:
    """The calculation of that name; it returns plain values by quantity.

    Raises:
        ConfigError: if no calculation has that name.
    """
    try:
        known(name, CALCULATIONS, "calculation")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return CALCULATIONS[name]
