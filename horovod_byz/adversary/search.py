"""Tries every attack on a rule, and reports how far each moves its result, beside the theorem's bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from horovod_byz.adversary.families import SEARCHED, Searched, fixed
from horovod_byz.adversary.honest import Honest
from horovod_byz.aggregation import engine
from horovod_byz.aggregation import rows as reading
from horovod_byz.attacks.base import Attack
from horovod_byz.attacks.hidden import Mimic
from horovod_byz.attacks.line import Line, length, strongest
from horovod_byz.common.checks import count
from horovod_byz.rules import Draco, MajorityVote, Rule, as_rule
from horovod_byz.theory.robustness import displacement_bound, least_kappa

__all__ = ["Report", "Tried", "search"]

Floats = NDArray[np.float64]

_ROUNDING = 1e-6  # relative; a search in float64 may end so far above a bound that is attained


@dataclass(frozen=True)
class Tried:
    """An attack, and how far it moved the rule.

    Attributes:
        attack: the attack, at its worst strength.
        option: the option that was searched; empty for an attack without a strength.
        strength: its value at the worst; None for an attack without one.
        displacement: distance of the result to the honest mean, in honest deviations.
        weight: share of the result that comes from Byzantine rows; NaN, not measured, where the rule takes
            values.
    """

    attack: Attack
    option: str
    strength: float | None
    displacement: float
    weight: float


@dataclass(frozen=True)
class Report:
    """What the search came to.

    Attributes:
        rule: the rule.
        n: number of rows.
        f: number of Byzantine rows, the last ones.
        d: number of coordinates.
        source: where the honest rows come from.
        spread: the honest deviation: root of the mean squared distance of honest rows to their mean.
        unattacked: the displacement where the last f rows are honest too.
        bound: the theorem's bound on the displacement, in honest deviations; None where there is none.
        floor: the bound below which no rule's can lie.
        tried: every attack, the worst first.
    """

    rule: Rule
    n: int
    f: int
    d: int
    source: str
    spread: float
    unattacked: float
    bound: float | None
    floor: float
    tried: tuple[Tried, ...]

    @property
    def worst(self) -> Tried:
        """The attack that moves the rule farthest."""
        return self.tried[0]

    @property
    def exceeded(self) -> bool:
        """Whether an attack goes beyond the bound: then the rule or the theorem is wrong."""
        return self.bound is not None and self.worst.displacement > self.bound * (1 + _ROUNDING) + 1e-9

    def to_data(self) -> dict[str, Any]:
        """Plain data; what is not measured is None."""
        return {
            "rule": repr(self.rule),
            "n": self.n,
            "f": self.f,
            "d": self.d,
            "honest_rows": self.source,
            "honest_deviation": self.spread,
            "unattacked": self.unattacked,
            "bound": self.bound,
            "least_bound_of_any_rule": self.floor if np.isfinite(self.floor) else None,
            "exceeded": self.exceeded,
            "attacks": [
                {
                    "attack": repr(tried.attack),
                    "option": tried.option or None,
                    "strength": tried.strength,
                    "displacement": tried.displacement if np.isfinite(tried.displacement) else None,
                    "byzantine_weight": None if np.isnan(tried.weight) else tried.weight,
                }
                for tried in self.tried
            ],
        }


def search(rule: Rule | str, f: int, honest: Honest, *, seed: int = 0, threads: int | None = None) -> Report:
    """Searches the attack that moves a rule farthest from the mean of honest rows.

    The rows are the honest ones, then f Byzantine ones, which before an attack are drawn around the honest
    mean with the honest deviation. The same arguments give the same report.

    Args:
        rule: the rule, or its name.
        f: number of Byzantine rows.
        honest: the honest rows.
        seed: of the Byzantine workers' own rows and of attacks that draw.
        threads: threads for the kernels; None for torch's number.

    Raises:
        TypeError, ValueError: if `rule` is no rule, does not hold for so many rows, or votes among replicas,
            whose rows would have to be equal; or f is no whole number of at least 0.
    """
    rule, f = as_rule(rule), count("search", "f", f)
    field = _Field.of(rule, f, honest, seed, threads)
    tried = [] if f == 0 else [*map(field.searched, SEARCHED), *field.each()]
    if not tried:
        raise ValueError("search: f = 0 leaves nobody to attack: use f >= 1")
    order = sorted(tried, key=lambda entry: -entry.displacement)  # stable: of equals the first
    n, bound = len(field.rows), displacement_bound(rule, len(field.rows), f)
    return Report(
        rule,
        n,
        f,
        honest.rows.shape[1],
        honest.source,
        field.spread,
        field.displacement(field.rows),
        bound,
        float(np.sqrt(least_kappa(n, f))),
        tuple(order),
    )


@dataclass(frozen=True, eq=False)
class _Field:
    """The rows before an attack, and the rule that they are given to."""

    rule: Rule
    rows: Floats
    byzantine: tuple[int, ...]
    mean: Floats
    spread: float
    seed: int
    threads: int | None

    @classmethod
    def of(cls, rule: Rule, f: int, honest: Honest, seed: int, threads: int | None) -> _Field:
        if getattr(rule, "redundancy", None) is not None or isinstance(rule, MajorityVote | Draco):
            raise ValueError(
                f"{rule!r} votes among replicas, whose rows are equal, and here all rows differ: search its "
                "inner and outer rules, and see horovod-byz theory detox for the vote"
            )
        h, d = honest.rows.shape
        rule.check(h + f)
        mean, spread = honest.mean, honest.spread
        own = mean + spread / np.sqrt(d) * Honest.drawn(max(f, 1), d, seed + 1, signal=0.0).rows[:f]
        rows = np.concatenate([honest.rows, own])
        return cls(rule, rows, tuple(range(h, h + f)), mean, spread or 1.0, seed, threads)

    def displacement(self, rows: Floats) -> float:
        """Distance of the rule's result on `rows` to the honest mean, in honest deviations."""
        result = engine.value(rows, self.rule, threads=self.threads)
        return length(result - self.mean) / self.spread

    def struck(self, attack: Attack) -> Floats:
        """The rows under an attack."""
        rows = self.rows.copy()
        attack(rows, self.byzantine, seed=self.seed)
        return rows

    def tried(self, attack: Attack, option: str = "", strength: float | None = None) -> Tried:
        rows = self.struck(attack)
        out = np.empty(rows.shape[1])
        source = reading.read(rows)[0]
        decision = engine.into(out, source, self.rule, engine.whole(source, 0, self.threads))
        weights = np.abs(decision.weights)
        share = float(weights[list(self.byzantine)].sum() / total) if (total := weights.sum()) else 0.0
        return Tried(attack, option, strength, length(out - self.mean) / self.spread, share)

    def searched(self, family: Searched) -> Tried:
        """A family at its worst strength."""
        value = self.spread / np.sqrt(self.rows.shape[1])
        moved = self._on_line(family) or (
            lambda strength: self.displacement(self.struck(family.make(strength, value)))
        )
        strength, _ = strongest(moved, family.strengths)
        attack = family.make(strength, value)
        return self.tried(attack, family.option, float(getattr(attack, family.option)))

    def _on_line(self, family: Searched) -> Callable[[float], float] | None:
        """How far a strength moves the rule, where the attack's rows are points of a line; else None.

        Of the two points that make the line one is the attack itself at strength 1.
        """
        if family.name not in ("a-little-is-enough", "inner-product"):
            return None
        at_one = self.struck(family.make(1.0, 1.0))[self.byzantine[0]]
        if family.name == "inner-product":  # -epsilon mu = 0 + epsilon (-mu), seen from mu
            push, begin = np.negative(self.mean), 1.0
            ahead = -1.0 if family.sign < 0 else 1.0
        else:
            push, begin, ahead = at_one - self.mean, 0.0, 1.0
        if not push.any():
            return None
        line = Line(self.rule, self.rows, self.byzantine, self.mean, push, threads=self.threads)
        return lambda strength: line.moved(begin + ahead * strength)

    def each(self) -> list[Tried]:
        """The attacks without a strength; of the workers that can be copied the worst."""
        honest = tuple(range(len(self.rows) - len(self.byzantine)))
        tried = [self.tried(attack) for attack in fixed(honest)]
        copies = [entry for entry in tried if isinstance(entry.attack, Mimic)]
        worst = max(copies, key=lambda entry: entry.displacement)
        copied = Tried(worst.attack, "worker", None, worst.displacement, worst.weight)
        return [entry for entry in tried if not isinstance(entry.attack, Mimic)] + [copied]
