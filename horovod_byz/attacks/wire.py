"""The simulated wire: an attack and its schedule, in the form that a collector calls."""

from __future__ import annotations

from dataclasses import dataclass

from horovod_byz.attacks.base import Attack, FloatRows
from horovod_byz.attacks.schedule import Schedule
from horovod_byz.attacks.script import Script


@dataclass(frozen=True)
class Wire:
    """A simulated attack on the rows between compute and aggregate, at the steps of a schedule.

    Args:
        schedule: the Byzantine workers of each step; a `Script` also has their attacks.
        attack: their attack; None with a script.
        seed: integer in [0, 2^64), for the attack's random numbers.
        start: first step of the attack; earlier steps are honest.

    Raises:
        ValueError: if both a script and an attack are given, or neither.
    """

    schedule: Schedule
    attack: Attack | None = None
    seed: int = 0
    start: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.schedule, Script) != (self.attack is None):
            raise ValueError(
                f"Wire needs an attack, unless its schedule is a Script, which has its own; "
                f"got attack = {self.attack!r} with {type(self.schedule).__name__}"
            )

    def workers(self, step: int) -> tuple[int, ...]:
        """Returns the sorted Byzantine workers of `step`; none before `start`."""
        return self.schedule.workers(step) if step >= self.start else ()

    def __call__(self, rows: FloatRows, offset: int, d: int, step: int) -> None:
        """Rewrites `rows`, the coordinates [offset, offset + width) of d, in place, as `Attack.__call__`."""
        if step < self.start:
            return
        if isinstance(self.schedule, Script):
            self.schedule(rows, seed=self.seed, step=step, offset=offset, d=d)
        elif self.attack is not None:
            self.attack(rows, self.workers(step), seed=self.seed, step=step, offset=offset, d=d)
