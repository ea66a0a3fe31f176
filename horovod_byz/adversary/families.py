"""What an adversary tries: every registered attack on rows, and the strengths of those that have one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from horovod_byz.attacks.base import Attack
from horovod_byz.attacks.hidden import Mimic, MinMax, MinSum
from horovod_byz.attacks.optimal import DEVIATIONS, MULTIPLES
from horovod_byz.attacks.registry import ATTACKS, by_name, names
from horovod_byz.attacks.scaling import SignFlip
from horovod_byz.common.registry import required_of

__all__ = ["SEARCHED", "Searched", "fixed"]

_WIDE = tuple(2.0**k for k in range(-4, 17))  # 1/16 to 65536


@dataclass(frozen=True)
class Searched:
    """An attack whose strength is searched.

    Attributes:
        name: its name.
        option: its option that is the strength.
        strengths: the grid, ascending, in units of `unit`.
        sign: of the option.
        unit: "1", or "value": the honest rows' standard deviation of a value.
        options: its other options.
    """

    name: str
    option: str
    strengths: tuple[float, ...]
    sign: int = 1
    unit: str = "1"
    options: tuple[tuple[str, Any], ...] = ()

    def make(self, strength: float, value: float) -> Attack:
        """The attack at a strength, where honest values deviate by `value`."""
        scale = value if self.unit == "value" else 1.0
        return by_name(self.name, **{self.option: self.sign * strength * scale}, **dict(self.options))


SEARCHED: tuple[Searched, ...] = (
    Searched("a-little-is-enough", "z", DEVIATIONS, options=(("view", "honest"),)),
    Searched("a-little-is-enough", "z", DEVIATIONS, options=(("view", "honest"), ("sign", -1))),
    Searched("inner-product", "epsilon", MULTIPLES),
    Searched("inner-product", "epsilon", MULTIPLES, sign=-1),
    Searched("reversed-gradient", "c", _WIDE),
    Searched("gradient-scale", "scale", _WIDE),
    Searched("gaussian", "std", _WIDE, unit="value"),
    Searched("constant", "value", _WIDE, unit="value"),
    Searched("constant", "value", _WIDE, sign=-1, unit="value"),
)


def fixed(honest: tuple[int, ...]) -> Iterator[Attack]:
    """The attacks without a strength, those of installed packages and of the caller among them.

    Args:
        honest: the honest rows, each of which `Mimic` copies in turn.
    """
    searched = {family.name for family in SEARCHED}
    for direction in ("unit", "deviation", "sign"):
        yield MinMax(direction)
        yield MinSum(direction)
    yield from (Mimic(worker) for worker in honest)
    yield SignFlip(of="mean")
    special = {"min-max", "min-sum", "mimic"}
    for name in names():
        kind = ATTACKS[name]
        # A dimensional attack hits values in any rows, and a theorem on f rows says nothing of it.
        if name in searched | special or kind.acts_on != "rows" or kind.threat != "classic":
            continue
        if not required_of(kind):
            yield by_name(name)
