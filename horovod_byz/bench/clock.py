"""Timing for a machine that does other work too: rules take turns, and ratios compare calls of one round."""

from __future__ import annotations

import ctypes
import re
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MEAN", "READ", "Seconds", "Spread", "Timing", "extra_memory", "measure", "seconds"]

READ = "read floor"
MEAN = "torch.mean(0)"


@dataclass(frozen=True)
class Seconds:
    """The duration of one call: processor time of the calling thread, and wall time."""

    cpu: float
    wall: float


# A way to aggregate, called without arguments. If it returns `Seconds`, they replace the measured ones.
Way = Callable[[], object]


@dataclass(frozen=True)
class Spread:
    """Lower quartile, median and upper quartile."""

    low: float
    mid: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        if len(values) < 2:
            return cls(values[0], values[0], values[0])
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))


@dataclass(frozen=True)
class Timing:
    """The cost of one way to aggregate.

    Args:
        name: the rule or expression.
        cpu_ms: median processor time, milliseconds.
        wall_ms: median time on the wall, milliseconds.
        over_floor: processor time divided by that of reading all rows once in the same round.
        over_mean: the same for torch.mean(0).
        wall_over_floor: wall time by the floor's wall time.
    """

    name: str
    cpu_ms: float
    wall_ms: float
    over_floor: Spread
    over_mean: Spread
    wall_over_floor: Spread


def seconds(way: Way) -> Seconds:
    """Times one call; a way that runs in another process returns its own `Seconds`."""
    wall, cpu = time.perf_counter(), time.thread_time()
    result = way()
    taken = Seconds(time.thread_time() - cpu, time.perf_counter() - wall)
    return result if isinstance(result, Seconds) else taken


def measure(ways: Mapping[str, Way], rounds: int, rare: frozenset[str] = frozenset()) -> list[Timing]:
    """Times every way once per round, after one round that is not counted.

    Ratios are taken inside a round and only then summarised: calls of one round share the
    machine's load, so their ratio is stable even when the milliseconds are not.

    Args:
        ways: by name; `READ` and `MEAN` among them.
        rounds: number of counted rounds.
        rare: names of slow ways, timed in the first two counted rounds only.
    """
    samples: dict[str, list[tuple[int, Seconds]]] = {name: [] for name in ways}
    for count in range(rounds + 1):
        for name, way in ways.items():
            if name in rare and not 1 <= count <= 2:
                continue
            taken = seconds(way)
            if count:
                samples[name].append((count, taken))
    floor, mean = dict(samples[READ]), dict(samples[MEAN])
    return [
        Timing(
            name,
            1e3 * statistics.median(sample.cpu for _, sample in own),
            1e3 * statistics.median(sample.wall for _, sample in own),
            Spread.of([sample.cpu / floor[k].cpu for k, sample in own]),
            Spread.of([sample.cpu / mean[k].cpu for k, sample in own]),
            Spread.of([sample.wall / floor[k].wall for k, sample in own]),
        )
        for name, own in samples.items()
    ]


def extra_memory(way: Way) -> int | None:
    """Bytes by which one call raises the peak of this process's memory; None if the system has no count."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # else a call may reuse memory that an earlier call freed
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before = _status("VmRSS")
        way()
        return max(0, _status("VmHWM") - before)
    except (OSError, AttributeError):
        return None


def _status(field: str) -> int:
    line = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if line is None:
        raise OSError(f"/proc/self/status has no {field}")
    return 1024 * int(line[1])
