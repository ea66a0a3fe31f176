"""A script of faults: attacks by worker and step.

    Script({10: {3: NotANumber()}, (20, 30): {(0, 5): Gaussian(), 7: Zero()}})
    Script().at(10, 3, NotANumber()).during(20, 30, (0, 5), Gaussian()).during(20, 30, 7, Zero())

are the same script: worker 3 sends NaN at step 10, workers 0, 5 and 7 misbehave at the steps 20 to 29.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from horovod_byz.attacks.base import Attack, FloatRows
from horovod_byz.attacks.registry import from_data, to_data
from horovod_byz.attacks.schedule import Schedule, worker_indices


@dataclass(frozen=True)
class Event:
    """An attack by some workers at the steps begin <= step < end.

    Args:
        begin: first step.
        end: the step after the last one; None: until training ends.
        workers: the workers' indices.
        attack: their attack.

    Raises:
        ValueError: if the steps are empty or negative, a worker is not an index, or `attack` is not an
            attack.
    """

    begin: int
    end: int | None
    workers: tuple[int, ...]
    attack: Attack

    def __post_init__(self) -> None:
        bounds = (self.begin,) if self.end is None else (self.begin, self.end)
        if any(isinstance(bound, bool) or not isinstance(bound, int) for bound in bounds) or self.begin < 0:
            raise ValueError(
                f"Event: begin and end must be integers >= 0, got {self.begin!r} and {self.end!r}"
            )
        if self.end is not None and self.end <= self.begin:
            raise ValueError(
                f"Event: no step lies in [{self.begin}, {self.end}): the end must exceed the beginning"
            )
        if not isinstance(self.attack, Attack):
            raise ValueError(
                f"Event: attack must be an attack such as attacks.Gaussian(), got {self.attack!r}"
            )
        object.__setattr__(self, "workers", worker_indices(self.workers, "Event"))

    def active(self, step: int) -> bool:
        """Whether the event takes place at `step`."""
        return self.begin <= step and (self.end is None or step < self.end)


@dataclass(frozen=True)
class Script(Schedule):
    """A schedule with an attack for each Byzantine worker of each step.

    Args:
        events: the events; or a mapping {step or (begin, end): {worker or (workers): attack}}, where end is
            exclusive and may be None. Where events meet at a step, they act in the order written, each on
            what the earlier ones left; every worker that the step names counts as Byzantine for all of them.

    Raises:
        ValueError: if an event is malformed (see `Event`).
    """

    events: tuple[Event, ...] = ()

    def __post_init__(self) -> None:
        events: Any = self.events
        if isinstance(events, Mapping):
            events = [event for steps, acts in events.items() for event in _from_mapping(steps, acts)]
        object.__setattr__(self, "events", tuple(events))
        for event in self.events:
            if not isinstance(event, Event):
                raise ValueError(f"Script: expected events or a mapping from steps to workers, got {event!r}")

    def at(self, step: int, workers: int | Sequence[int], attack: Attack) -> Script:
        """Returns this script with one more event, at a single step."""
        return self.during(step, step + 1, workers, attack)

    def during(self, begin: int, end: int | None, workers: int | Sequence[int], attack: Attack) -> Script:
        """Returns this script with one more event, at the steps begin <= step < end."""
        return Script((*self.events, Event(begin, end, worker_indices(workers, "Script"), attack)))

    def workers(self, step: int) -> tuple[int, ...]:
        return tuple(
            sorted({worker for event in self.events if event.active(step) for worker in event.workers})
        )

    def __call__(
        self, rows: FloatRows, *, seed: int = 0, step: int = 0, offset: int = 0, d: int | None = None
    ) -> None:
        """Carries out the events of `step` on `rows`, in place.

        Each attack writes the workers of its event only; a dimensional one too.

        The arguments and errors are those of `Attack.__call__`; a worker >= n is a ValueError too.
        """
        # All events see the same honest rows, whichever workers an event itself writes.
        byzantine = self.workers(step)
        for event in self.events:
            if event.active(step):
                event.attack(rows, byzantine, seed=seed, step=step, offset=offset, d=d, only=event.workers)

    @classmethod
    def from_data(cls, data: Iterable[Mapping[str, Any]]) -> Script:
        """Returns a script from plain data, as a TOML file holds it.

        Each table has `step`, or `steps = [begin, end]` (end exclusive; `[begin]` alone: until training
        ends), `workers`, and `attack` (a name, or a table with `name` and options).

        Raises:
            ValueError: if a table lacks one of these or has another key, or an attack is unknown.

        Examples:
            >>> Script.from_data([{"step": 10, "workers": [3], "attack": "zero"}])
            Script(events=(Event(begin=10, end=11, workers=(3,), attack=Zero()),))
        """
        return cls(tuple(_from_table(table) for table in data))

    def to_data(self) -> list[dict[str, Any]]:
        """Returns plain data from which `from_data` builds an equal script."""
        return [
            {
                "steps": [event.begin] if event.end is None else [event.begin, event.end],
                "workers": list(event.workers),
                "attack": to_data(event.attack),
            }
            for event in self.events
        ]


def _from_mapping(steps: Any, acts: Any) -> list[Event]:
    if not isinstance(acts, Mapping):
        raise ValueError(
            f"Script: step {steps!r} must map workers to attacks, got {acts!r}: write {{worker: attack}}"
        )
    if not isinstance(steps, int) and not (isinstance(steps, tuple) and len(steps) == 2):
        raise ValueError(f"Script: a key must be a step or (begin, end), got {steps!r}")
    begin, end = (steps, steps + 1) if isinstance(steps, int) else steps
    return [Event(begin, end, worker_indices(workers, "Script"), attack) for workers, attack in acts.items()]


def _from_table(table: Mapping[str, Any]) -> Event:
    steps = table.get("steps", [table.get("step")])
    if set(table) not in ({"step", "workers", "attack"}, {"steps", "workers", "attack"}) or not (
        isinstance(steps, list) and len(steps) in (1, 2) and all(isinstance(step, int) for step in steps)
    ):
        raise ValueError(
            f"an event needs step or steps = [begin, end], workers, and attack, and nothing else; "
            f"got {dict(table)!r}"
        )
    end = steps[1] if len(steps) == 2 else steps[0] + 1 if "step" in table else None
    return Event(steps[0], end, worker_indices(table["workers"], "Script"), from_data(table["attack"]))
