"""A pipeline: maps of rows to mixtures, one after another, and a rule over the last mixtures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeGuard

import numpy as np

from horovod_byz.aggregation.decided import decided
from horovod_byz.aggregation.decision import Decision, Weighted, compose
from horovod_byz.aggregation.engine import is_symmetric
from horovod_byz.aggregation.measure import Statistics
from horovod_byz.aggregation.source import Floats, Ints
from horovod_byz.aggregation.statistic import DISTANCES, GRAM, Statistic
from horovod_byz.common.registry import Registry
from horovod_byz.common.words import parse_word
from horovod_byz.rules.base import BoundedRule, Facts, FiniteRule, RowRule, Rule, StatedRule
from horovod_byz.rules.draco import Draco
from horovod_byz.rules.naming import as_rule
from horovod_byz.rules.preaggregation import ARC, NNM, Bucketing, Clipping, PreAggregation
from horovod_byz.rules.vote import MajorityVote

_DERIVED = (DISTANCES, GRAM)


def _is_map(thing: Any) -> bool:
    return isinstance(thing, type) and issubclass(thing, PreAggregation)


MAPS: Registry[type[PreAggregation]] = Registry(
    "pre-aggregation", "horovod_byz.preaggregations", _is_map, "a class derived from PreAggregation"
)
for _kind in (NNM, Bucketing, Clipping, ARC):
    MAPS.add(_kind.__name__.lower(), _kind)


@dataclass(frozen=True, init=False, repr=False)
class Pipeline(FiniteRule):
    """A rule over mixtures of the rows, such as `Pipeline(NNM(f=2), TrimmedMean(f=2))`.

    The mixtures are weights on rows. For a rule on distances they are never made: the distances between
    mixtures follow from those between rows, and the result is one weighted sum of the rows. A coordinate-wise
    rule makes them block by block. Behind `Clipping` and `ARC`, distances are measured in a pass of their
    own, since float64 distances to a huge row do not tell where its clipped form lies.

    Args:
        chain: pre-aggregations, then a rule; or their names, such as "nnm:f=2"; also in one text,
            `Pipeline(chain="nnm:f=2+trimmed-mean:f=2")`, which a configuration writes as
            "pipeline:chain=nnm:f=2+trimmed-mean:f=2". The rule must not vote or be built from others: to
            group rows first, put the pipeline inside `Hierarchical`.

    Tolerates: what all stages tolerate, each on the rows that it is given. Cost: as its stages, and O(n d)
    per mixture in front of a coordinate-wise rule. Ties: as the stages. Non-finite: row excluded, and each
    f lowered by one.

    Raises:
        TypeError, ValueError: if the stages are not of this form, or a stage has too few rows.

    Examples:
        >>> import numpy as np
        >>> rule = Pipeline(NNM(f=1), "trimmed-mean:f=1")
        >>> rule, rule.max_byzantine(5)
        (Pipeline(NNM(f=1), TrimmedMean(f=1)), 1)
        >>> rule(np.array([[1.0], [2.0], [3.0], [4.0], [1e9]]))
        array([2.5])
    """

    chain: tuple[PreAggregation | Rule, ...]

    facts: ClassVar[Facts] = Facts(
        "as the stages on their rows", "as the stages", "as the stages", "row excluded, and each f lowered"
    )

    def __init__(self, *stages: Any, chain: Any = ()) -> None:
        listed = [*stages, *(re.split(r"\+(?=[A-Za-z_])", chain) if isinstance(chain, str) else chain)]
        flat = [
            part for stage in listed for part in (stage.chain if isinstance(stage, Pipeline) else [stage])
        ]
        if len(flat) < 2:
            raise ValueError(
                "Pipeline needs pre-aggregations and a rule, such as hb.Pipeline(hb.NNM(f=1), hb.Krum(f=1)), "
                f"got {flat}"
            )
        maps, rule = tuple(map(_as_map, flat[:-1])), _as_last(flat[-1])
        if _names_rows(rule) and not all(stage.row_by_row for stage in maps):
            raise ValueError(
                f"Pipeline: {rule!r} names rows by their workers, and a bucket is the row of no worker: use "
                "another rule, or no Bucketing"
            )
        object.__setattr__(self, "chain", (*maps, rule))

    def __repr__(self) -> str:
        return f"Pipeline({', '.join(map(repr, self.chain))})"

    @property
    def maps(self) -> tuple[PreAggregation, ...]:
        """The pre-aggregations."""
        return tuple(stage for stage in self.chain if isinstance(stage, PreAggregation))

    @property
    def rule(self) -> Rule:
        """The rule over the last mixtures."""
        last = self.chain[-1]
        assert isinstance(last, Rule)
        return last

    @property
    def measures(self) -> Statistic | None:  # type: ignore[override]
        """The statistic of the rows that the first stage, or a later one through mixtures, needs."""
        return self.maps[0].measures or (DISTANCES if self._derives(0) else None)

    @property
    def symmetric(self) -> bool:  # type: ignore[override]
        """As the rule's: no map gives a row a special place."""
        return is_symmetric(self.rule)

    def max_byzantine(self, n: int) -> int:
        """The least of what the stages cover, each of the rows that it is given."""
        if not self.defined_for(n):
            return -1
        covered = []
        for stage in self.maps:
            covered.append(stage.max_byzantine(n))
            n = stage.rows_of(n)
        return min(*covered, self.rule.max_byzantine(n))

    def check(self, n: int) -> None:
        given = n
        for stage in self.chain:
            try:
                stage.check(n)
            except ValueError as error:
                if n == given:
                    raise
                raise ValueError(f"{self!r} makes {n} rows of n = {given}, and {error}") from None
            n = stage.rows_of(n) if isinstance(stage, PreAggregation) else n

    def without(self, workers: Sequence[int], n: int) -> Rule:
        return self.renumbered(np.setdiff1d(np.arange(n), workers), n)

    def renumbered(self, kept: Ints, n: int) -> Pipeline:
        rule = self.rule
        return Pipeline(*self.maps, rule.renumbered(kept, n)) if _names_rows(rule) else self

    def decide_finite(self, statistics: Statistics) -> Decision:
        n, mixed, weights = statistics.n, statistics, np.eye(statistics.n)
        for place, stage in enumerate(self.maps):
            mixing = stage.mix(mixed)
            mixed = mixed.mixed(mixing, from_distances=self._derives(place))
            weights = _product(mixing, weights) if place else mixing
        top = decided(_lowered(self.rule, statistics.excluded), mixed)
        return compose([Weighted(row) for row in weights], top, n, mixes=True)

    def _derives(self, place: int) -> bool:
        """Whether a stage behind this one reads distances, and this one's mixtures allow to derive them."""
        later = [getattr(stage, "measures", None) for stage in self.chain[place + 1 :]]
        return self.maps[place].averages and any(wanted in _DERIVED for wanted in later)


def _as_map(stage: Any) -> PreAggregation:
    if isinstance(stage, PreAggregation):
        return stage
    if isinstance(stage, str):
        name, options = parse_word(stage)
        MAPS.check_options(name, options)
        return MAPS[name](**options)
    raise TypeError(
        f"Pipeline: each stage but the last must be a pre-aggregation such as hb.NNM(f=1), got {stage!r}"
    )


def _as_last(stage: Any) -> Rule:
    if isinstance(stage, PreAggregation):
        raise TypeError(f"Pipeline: the last stage must be a rule such as hb.Krum(f=1), got {stage!r}")
    rule = as_rule(stage, "Pipeline: the last stage")
    if not isinstance(rule, StatedRule) or isinstance(rule, MajorityVote | Draco):
        raise ValueError(
            f"Pipeline: the last stage must be a rule over single rows such as hb.Krum(f=1), got {rule!r}: "
            "mixtures are no replicas, and groups of workers come first, as in "
            "hb.Hierarchical(inner=hb.Pipeline(...), ...)"
        )
    return rule


def _names_rows(rule: Rule) -> TypeGuard[FiniteRule]:
    return isinstance(rule, FiniteRule) and rule.names_rows


def _lowered(rule: Rule, excluded: int) -> Rule:
    """A coordinate-wise rule for the rows that are left; rules over rows look at `Statistics.excluded`."""
    if isinstance(rule, BoundedRule) and not isinstance(rule, RowRule):
        return replace(rule, f=max(rule.f - excluded, 0))
    return rule


def _product(upper: Floats, lower: Floats) -> Floats:
    """The weights of mixtures of mixtures, added in one order, whatever the processor."""
    total: Floats = np.zeros((len(upper), lower.shape[1]))
    for row in range(len(lower)):
        total += upper[:, row, None] * lower[row]
    return total
