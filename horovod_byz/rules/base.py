"""The base classes of the aggregation rules: frozen values that decide from statistics of the rows."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np

from horovod_byz.aggregation import engine
from horovod_byz.aggregation.decided import checked_weights
from horovod_byz.aggregation.decision import Decision, Weighted
from horovod_byz.aggregation.measure import Statistics
from horovod_byz.aggregation.plan import Stages
from horovod_byz.aggregation.reach import OutOfReachError
from horovod_byz.aggregation.source import Floats, Ints
from horovod_byz.aggregation.statistic import Statistic
from horovod_byz.common.checks import count
from horovod_byz.rules.condition import Condition


@dataclass(frozen=True)
class Facts:
    """The four facts that each rule states.

    Attributes:
        tolerates: the condition on n and f under which the rule's guarantee holds, as text.
        cost: arithmetic for n rows of d coordinates.
        ties: which of equal rows or values wins.
        nonfinite: treatment of NaN and infinite values.
    """

    tolerates: str
    cost: str
    ties: str
    nonfinite: str


ROW_EXCLUDED = "row excluded, and f lowered by one for each"
VALUE_EXTREME = "value ordered beyond all finite ones; a coordinate with a non-finite result is 0"


@dataclass(frozen=True)
class Rule(ABC):
    """A map from n rows of d coordinates to one row.

    Calling a rule gives the aggregate alone; `horovod_byz.aggregate` also gives weights and verdicts.
    Rules are values: equal when their parameters are, and `eval(repr(rule))` is the rule. A rule with its own
    condition on n and f is a `StatedRule`; a rule built from other rules derives its limits from theirs.
    """

    facts: ClassVar[Facts]
    # Whether rows that change places leave the result the same (but for ties), so that the ledger may compare
    # their distances to it. Each class states it for itself: it is not inherited.
    symmetric: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "min_rows" in vars(cls) and cls.__module__ != __name__:
            raise TypeError(
                f"{cls.__name__} defines min_rows, which follows from its condition: write "
                "condition = Condition(slope, offset) for n >= slope f + offset in its place"
            )
        if "decide" in vars(cls) and "stages" not in vars(cls):
            cls.stages = Rule.stages  # type: ignore[method-assign]  # the parent's fit its `decide`
        condition = vars(cls).get("condition")
        if condition is not None and not isinstance(condition, Condition):
            raise TypeError(
                f"{cls.__name__}: condition must be a Condition(slope, offset), for n >= slope f + offset, "
                f"got {condition!r}"
            )
        if "condition" in vars(cls) and not issubclass(cls, StatedRule):
            raise TypeError(f"{cls.__name__} states a condition: derive it from StatedRule in place of Rule")

    def __new__(cls, *arguments: Any, **options: Any) -> Self:
        _refuse_hidden_options(cls)
        return super().__new__(cls)

    def __call__(self, rows: Any, *, threads: int | None = None) -> Any:
        """Aggregates (n, d) rows to (d,), of the same type, dtype and device.

        Raises:
            TypeError: if `rows` are not floating point, or mix types, dtypes or devices.
            ValueError: if the shape is not (n, d), or the rule does not hold for n rows.
        """
        return engine.value(rows, self, threads=threads)

    @abstractmethod
    def max_byzantine(self, n: int) -> int:
        """The largest number of Byzantine rows among n that this rule, with its own parameters, covers.

        Returns:
            That number, or -1 where the rule is not defined for n rows.

        Raises:
            TypeError, ValueError: if n is no whole number of at least 0.
        """

    def defined_for(self, n: int) -> bool:
        """Whether `check(n)` raises nothing.

        Raises:
            TypeError, ValueError: if n is no whole number of at least 0.
        """
        n = count(self, "n", n)
        try:
            self.check(n)
        except ValueError:
            return False
        return True

    @property
    def remembers(self) -> bool:
        """Whether the result depends on the last one, `Statistics.memory`; so for a rule with such a part."""
        parts = [getattr(self, field.name) for field in fields(self)]
        listed = [part for value in parts for part in (value if isinstance(value, tuple) else (value,))]
        return any(isinstance(part, Rule) and part.remembers for part in listed)

    def check(self, n: int) -> None:
        """Checks that the rule is defined for n rows; a rule without a condition accepts any.

        Raises:
            ValueError: if it is not; the message names the remedy.
        """
        return

    def without(self, workers: Sequence[int], n: int) -> Rule:
        """The rule over the other of n rows, which are then numbered anew from 0; see `Without`.

        A rule whose parameters name rows, such as redundancy groups, gives one with other parameters.

        Args:
            workers: the rows that are left out, ascending, each below n.
            n: number of rows, these included.

        Raises:
            ValueError: if the rule cannot do without these rows. The caller checks the number that remains.
        """
        if getattr(self, "redundancy", None) is not None:
            raise ValueError(
                f"{type(self).__name__} has redundancy groups, and does not say how they go on without some "
                "workers: define without(workers, n)"
            )
        return self

    def dissenting(self, statistics: Statistics, decision: Decision, workers: Sequence[int]) -> Ints:
        """Those of the workers left out that the others of their redundancy group would have outvoted.

        Args:
            statistics: of all rows.
            decision: the decision without these workers, over all rows.
            workers: the rows that were left out.
        """
        return np.zeros(0, np.int64)

    def stages(self, n: int, step: int) -> Stages | None:
        """The stages of this rule at a step: a vote and rules over the votes, for one pass of the engine.

        Returns:
            Stages with the same result as `decide`; None if the rule has no such form.
        """
        return None

    @abstractmethod
    def decide(self, statistics: Statistics) -> Decision:
        """Turns statistics of the rows into a decision; pure, and the same on every rank."""


def _refuse_hidden_options(kind: type[Rule]) -> None:
    """Refuses a class whose `__init__` takes options that equality, repr and the ranks' comparison miss.

    Raises:
        TypeError: if it, or a class that it derives from, is no dataclass and has such an `__init__`.
    """
    for parent in kind.__mro__:
        own = vars(parent)
        if not issubclass(parent, Rule) or "__init__" not in own or "__dataclass_fields__" in own:
            continue
        if len(inspect.signature(own["__init__"]).parameters) > 1:
            raise TypeError(
                f"{parent.__name__}: a rule with options must be a frozen dataclass, or rules with other "
                "options would be equal, and ranks could not see that theirs differ: write "
                "@dataclass(frozen=True) and fields in place of __init__, with checks in __post_init__"
            )


@dataclass(frozen=True)
class StatedRule(Rule):
    """A rule with its own condition, which determines its least n, largest f, texts and errors."""

    condition: ClassVar[Condition]

    def max_byzantine(self, n: int) -> int:
        """See `Rule.max_byzantine`; with another f the class may cover up to `condition.largest_f(n)`."""
        return self.condition.largest_f(n) if self.defined_for(n) else -1

    @classmethod
    def min_rows(cls, f: int) -> float:
        """The smallest number of rows that covers f Byzantine ones, by the class's condition."""
        return cls.condition.least_n(f)


@dataclass(frozen=True)
class FiniteRule(Rule):
    """A rule for finite rows; rows with NaN or Inf are removed before it runs.

    A finite row is removed too if the square of its distance to the others would overflow float64. If most
    rows are that large, the rule reads statistics of the rows divided by `statistics.unit`. See `reach`.
    """

    # The statistic that the rule always needs, if any. It is measured first, which saves the pass over the
    # rows that counts non-finite values; see `Statistics.nonfinite`.
    measures: ClassVar[Statistic | None] = None
    # Whether a parameter names rows by their workers; `renumbered` then follows them.
    names_rows: ClassVar[bool] = False

    def decide(self, statistics: Statistics) -> Decision:
        if self.measures is not None:
            statistics.get(self.measures)
        if len(statistics.finite) == 0:
            return Weighted(np.zeros(statistics.n))
        return self._decide_on(statistics, statistics.finite)

    def _decide_on(self, statistics: Statistics, kept: Ints) -> Decision:
        """The decision over the kept rows; the others are certainly Byzantine."""
        n, part = statistics.n, statistics
        if len(kept) < n:
            part = statistics.take(kept, excluded=statistics.excluded + n - len(kept))
        rule = self.renumbered(kept, n)
        try:
            return rule.decide_finite(part.checked).expand(n, kept)
        except OutOfReachError as error:
            lost = error.rows  # handled outside: the recursion must not nest exceptions
        if len(lost):
            return rule._decide_on(part, np.setdiff1d(np.arange(part.n), lost)).expand(n, kept)
        return rule.decide_finite(part.scaled).expand(n, kept)

    def renumbered(self, kept: Ints, n: int) -> FiniteRule:
        """The rule for the kept of n rows, numbered anew: itself, unless a parameter names rows."""
        return self

    @abstractmethod
    def decide_finite(self, statistics: Statistics) -> Decision:
        """Like `decide`, for finite rows only; `statistics.excluded` rows were certainly Byzantine."""


@dataclass(frozen=True)
class RowRule(FiniteRule, StatedRule):
    """A rule that weighs whole rows; rows with NaN or Inf are removed before it runs."""

    def decide_finite(self, statistics: Statistics) -> Decision:
        return Weighted(checked_weights(self.weigh(statistics), statistics.n, f"{self!r}: weigh"))

    @abstractmethod
    def weigh(self, statistics: Statistics) -> Floats:
        """The weight of each finite row, (n,)."""


@dataclass(frozen=True)
class BoundedRule(StatedRule):
    """A rule with a parameter f; its condition checks the number of rows."""

    f: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "f", count(self, "f", self.f))

    def check(self, n: int) -> None:
        self.condition.check(n, self.f, repr(self))

    def max_byzantine(self, n: int) -> int:
        """See `Rule.max_byzantine`: the rule's own f if n rows are enough for it, else -1."""
        return self.f if self.defined_for(n) else -1

    def remaining_f(self, statistics: Statistics) -> int:
        """Largest number of Byzantine rows among the finite rows."""
        return max(self.f - statistics.excluded, 0)
