"""What a rule answers, checked before rows are combined by it: a user's own rule may answer anything."""

from __future__ import annotations

from typing import Any

import numpy as np

from horovod_byz.aggregation.decision import (
    Anchored,
    Composite,
    Coordinatewise,
    Decision,
    Segmented,
    Weighted,
)
from horovod_byz.aggregation.measure import Statistics
from horovod_byz.aggregation.plan import Rule
from horovod_byz.aggregation.source import Floats
from horovod_byz.common.errors import ExplainedError

__all__ = ["AnswerError", "checked_weights", "decided"]


class AnswerError(ExplainedError, TypeError):
    """A rule that answers with something else than a decision or weights."""


def decided(rule: Rule, statistics: Statistics) -> Decision:
    """The decision of a rule on statistics of n rows.

    Raises:
        AnswerError: if it is no decision, or its weights are no real numbers.
        ValueError: if its weights are not finite or not n.
    """
    decision: Any = rule.decide(statistics)
    if not isinstance(decision, Weighted | Coordinatewise | Composite | Segmented | Anchored):
        raise AnswerError(
            f"{rule!r}: decide must return a decision such as Weighted.uniform(n, rows), got "
            f"{_kind(decision)}"
        )
    if isinstance(decision, Weighted):
        weights = checked_weights(decision.weights, statistics.n, f"{rule!r}: decide")
        if weights is not decision.weights:
            return Weighted(weights, decision.outvoted)
    return decision


def checked_weights(weights: Any, n: int, what: str) -> Floats:
    """The weights of n rows, (n,) float64; of whole numbers and of lists a copy.

    Args:
        weights: what was given.
        n: number of rows.
        what: who gave them, for the message.

    Raises:
        AnswerError: if they are no real numbers.
        ValueError: if there are not n of them, or some are not finite.
    """
    try:
        array = np.asarray(weights)
    except ValueError as error:  # ragged
        raise AnswerError(f"{what} must give one weight for each of {n} rows: {error}") from error
    if array.dtype.kind not in "iuf":
        raise AnswerError(f"{what} must give one real number for each of {n} rows, got {_kind(weights)}")
    if array.shape != (n,):
        raise ValueError(f"{what} must give one weight for each of {n} rows, got the shape {array.shape}")
    if not np.isfinite(array).all():
        bad = int(np.flatnonzero(~np.isfinite(array))[0])
        raise ValueError(f"{what} must give finite weights, got {array[bad]} for row {bad} of {n}")
    return array.astype(np.float64, copy=False)


def _kind(value: Any) -> str:
    dtype = f" of dtype {value.dtype}" if isinstance(value, np.ndarray) else ""
    return f"{type(value).__name__}{dtype}"
