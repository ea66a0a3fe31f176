"""`hb.aggregate`: applies a rule, or a rule's name, to the caller's rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from horovod_byz.aggregation import engine
from horovod_byz.aggregation import rows as reading
from horovod_byz.aggregation.source import Floats
from horovod_byz.aggregation.verdict import Verdict
from horovod_byz.common.checks import count
from horovod_byz.rules.base import Rule
from horovod_byz.rules.naming import as_rule


@dataclass(frozen=True, eq=False)
class Aggregate:
    """The result of `aggregate`.

    Attributes:
        value: the aggregate, (d,), of the rows' type, dtype and device.
        weights: weight of each row in the result, (n,) float64; NaN, not measured, for the rows from which a
            coordinate-wise rule took its values, since their part differs by coordinate.
        verdicts: one `Verdict` per row, in row order.
    """

    value: Any
    weights: Floats
    verdicts: tuple[Verdict, ...]


def aggregate(
    rows: Any,
    rule: Rule | str,
    *,
    step: int = 0,
    threads: int | None = None,
    segments: Sequence[int] | None = None,
    memory: Any = None,
) -> Aggregate:
    """Aggregates n rows and reports how each was treated.

    Args:
        rows: (n, d) array or tensor, or a sequence of n one-dimensional ones; floating point. They
            are never written to.
        rule: an aggregation rule such as `MultiKrum(f=2)`, or its name, such as "multi-krum:f=2".
        step: optimizer step, which seeds randomised rules.
        threads: threads for the kernels (default: torch's number of threads); the result does not
            depend on it.
        segments: the coordinate after each tensor's last, for rules that treat tensors separately, such as
            `MajorityVote(scope="tensor")`; the last is d.
        memory: the last result's value, (d,), for rules that remember, such as `CenteredClipping`; None for
            zeros.

    Returns:
        The aggregate with weights and verdicts.

    Raises:
        TypeError: if `rows` are not floating point, or mix types, dtypes or devices, or `rule` is no rule, or
            `step` no whole number.
        ValueError: if `step` is negative, the shape is not (n, d), the rule does not hold for n rows, or no
            rule has that name, or `memory` is no vector of d finite numbers.

    Examples:
        >>> import numpy as np
        >>> import horovod_byz as hb
        >>> rows = np.array([[1.0, 2.0], [1.0, 4.0], [float("nan"), 0.0]])
        >>> result = hb.aggregate(rows, hb.Mean())
        >>> result.value, result.verdicts[2].reason
        (array([1., 3.]), 'non-finite')
    """
    rule = as_rule(rule)
    step = count("aggregate", "step", step)
    source, restore = reading.read(rows)
    last = None if memory is None else engine.checked_memory(memory, source)
    out = np.empty(source.d, source.dtype)
    outcome = engine.run(rule, source, out, engine.whole(source, step, threads, segments, last))
    return Aggregate(restore(out), outcome.weights, outcome.verdicts)
