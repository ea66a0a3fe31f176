"""One rank of the step benchmark: `python -m horovod_byz.bench step-rank FILE JOB`; see `step_jobs.Job`.

Variants take turns in each round, in an order that rotates, so that the load of the machine meets all alike;
a ratio compares steps of one round only. A step lasts as long as its slowest rank's.
"""

from __future__ import annotations

import gc
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

import horovod_byz as hb
from horovod_byz.bench.clock import Spread, extra_memory
from horovod_byz.bench.step_models import MODELS, Model
from horovod_byz.bench.step_variants import ALONE, PARTS, Training, Variant, baseline, gradients, variants
from horovod_byz.collect.protocol import Transport
from horovod_byz.collect.transport import connect, time_limit

__all__ = ["batches", "interleaved", "main", "run", "summary"]

_WIDTH = len(PARTS) + 1  # the parts, and the bytes sent


class Ranks:
    """What the ranks tell one another between the measurements."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.rank, self.size = transport.rank, transport.size

    def all(self, *values: float) -> Any:
        """Every rank's values, `(size, k)`; no rank returns before all have called."""
        own = np.frombuffer(np.array(values, np.float64).tobytes(), np.uint8)
        return self._transport.exchange(own, "step benchmark").view(np.float64)


def sent() -> int:
    """Bytes that this process has written, to sockets for the most part."""
    line = re.search(r"wchar: (\d+)", Path("/proc/self/io").read_text())
    return 0 if line is None else int(line[1])


def busy() -> float:
    """Seconds that all cores of the machine have worked for processes; 0 where the system has no count."""
    try:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[1:4])) / os.sysconf("SC_CLK_TCK")


def batches(given: list[Variant], d: int, size: int, room: float) -> Iterator[list[Variant]]:
    """Cuts variants into lists that fit the memory together.

    Args:
        given: the variants.
        d: number of parameters.
        size: number of ranks on this machine.
        room: bytes for all ranks.
    """
    batch: list[Variant] = []
    used = 0.0
    for variant in given:
        copies = 6 if "sharded" in variant.name else size + 4
        need = 4.0 * d * copies * size
        if batch and used + need > room:
            yield batch
            batch, used = [], 0.0
        batch.append(variant)
        used += need
    if batch:
        yield batch


def start(ranks: Ranks, variant: Variant, model: Model) -> tuple[Training, list[int | None]]:
    """Makes a training and takes its first two steps; with the bytes by which each rank's memory grew."""
    made: list[Training] = []

    def make() -> None:
        batch = model.batch(variant.batch_of(ranks.rank, ranks.size))
        made.append(Training(variant, model, batch))
        for _ in range(2):
            made[0].step()

    grown = extra_memory(make)
    if not made:  # this system has no count of the peak
        make()
    grew = ranks.all(np.nan if grown is None else grown)[:, 0]
    return made[0], [None if np.isnan(value) else int(value) for value in grew]


def interleaved(
    ranks: Ranks, trainings: list[Training], model: Model, rounds: int
) -> dict[str, dict[str, Any]]:
    """Per variant: its steps, `(rounds, size, parts and bytes)`, and its communication, `(rounds, size)`."""
    own: dict[int, list[torch.Tensor]] = {}
    for training in trainings:
        number = training.variant.batch_of(ranks.rank, ranks.size)
        if number not in own:
            own[number] = gradients(model, model.batch(number))
    steps: dict[str, list[Any]] = {training.variant.name: [] for training in trainings}
    alone: dict[str, list[Any]] = {training.variant.name: [] for training in trainings}
    for number in range(rounds):
        turn = number % len(trainings)
        for training in trainings[turn:] + trainings[:turn]:
            name = training.variant.name
            ranks.all(0.0)
            before = sent()
            parts = training.step()
            steps[name].append(ranks.all(*parts, sent() - before))
            training.prepare(own[training.variant.batch_of(ranks.rank, ranks.size)])
            ranks.all(0.0)
            seconds = training.communicate()
            alone[name].append(ranks.all(np.nan if seconds is None else seconds)[:, 0])
    return {name: {"steps": np.array(steps[name]), "alone": np.array(alone[name])} for name in steps}


def summary(measured: dict[str, dict[str, Any]], own: str, counted: bool) -> dict[str, dict[str, Any]]:
    """Medians and quartiles: milliseconds of the slowest rank, ratios to the baseline in the same round.

    Args:
        measured: as `interleaved` returns it.
        own: name of the baseline.
        counted: whether the bytes that a process writes are those that it sends.
    """
    result = {}
    for name, each in measured.items():
        steps, base = each["steps"], measured[own]["steps"]
        slowest = steps[:, :, 0].argmax(1)
        parts = steps[np.arange(len(steps)), slowest]
        whole, before = steps[:, :, 0].max(1), base[:, :, 0].max(1)
        alone, alone_before = each["alone"].max(1), measured[own]["alone"].max(1)
        entry: dict[str, Any] = {
            "ms": {part: _spread(1e3 * parts[:, i]) for i, part in enumerate(PARTS)},
            "ratio": _spread(whole / before),
            "communication_ms": None if np.isnan(alone).any() else _spread(1e3 * alone),
            "communication_ratio": None,
            "sent_bytes": [int(v) for v in np.median(steps[:, :, -1], axis=0)] if counted else None,
        }
        if not (np.isnan(alone).any() or np.isnan(alone_before).any()):
            entry["communication_ratio"] = _spread(alone / alone_before)
        result[name] = entry
    return result


def _spread(values: Any) -> dict[str, float]:
    return {key: round(value, 4) for key, value in asdict(Spread.of([float(v) for v in values])).items()}


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Measures a job on the ranks of this process; all ranks return the same.

    Args:
        job: backend, ranks, model, network, rounds and every; see `step_jobs.Job`.
    """
    ranks = Ranks(connect("step benchmark", time_limit(None)))
    model, own = MODELS[job["model"]], baseline(job["backend"])
    shapes = [parameter.shape for parameter in model.build().parameters()]
    d = sum(shape.numel() for shape in shapes)
    counted = (job["backend"], job["network"]) != ("mpi", "loopback")  # there MPI copies through memory
    # What is loaded and allocated once is not of the first variant's making.
    for variant in (Variant(ALONE), own, Variant("", hb.Mean(), "sharded")):
        start(ranks, variant, MODELS["tiny"])
    start(ranks, Variant(ALONE), model)
    _, plain = start(ranks, Variant(ALONE), model)
    first, grew = start(ranks, own, model)
    entries: dict[str, dict[str, Any]] = {}
    began, used, worked = time.perf_counter(), time.process_time(), busy()
    for batch in batches(variants(ranks.size, job["every"]), d, ranks.size, _room(ranks)):
        started = {variant: start(ranks, variant, model) for variant in batch}
        trainings = [first, *(training for training, _ in started.values())]
        measured = summary(interleaved(ranks, trainings, model, job["rounds"]), own.name, counted)
        memory = {own.name: grew, **{variant.name: grown for variant, (_, grown) in started.items()}}
        told = {own.name: own, **{variant.name: variant for variant in batch}}
        for name, entry in measured.items():
            extra = [
                None if a is None or b is None else a - b for a, b in zip(memory[name], plain, strict=True)
            ]
            variant = told[name]
            about = {"name": name, "rule": None if variant.rule is None else repr(variant.rule)}
            entries.setdefault(name, {**about, **entry, "extra_bytes": extra})
        del started, trainings
        gc.collect()  # a session and its optimizer refer to one another
    lasted = time.perf_counter() - began
    ours = float(ranks.all(time.process_time() - used).sum())
    return {
        **{key: job[key] for key in ("backend", "ranks", "model", "network", "rounds")},
        "title": model.title,
        "d": d,
        "tensors": len(shapes),
        "threads": torch.get_num_threads(),
        "baseline": own.name,
        "seconds": round(lasted, 1),
        "others_cores": round(max(0.0, busy() - worked - ours) / lasted, 2),
        "variants": list(entries.values()),
    }


def _room(ranks: Ranks) -> float:
    """Half the memory that was free on the least free host: in bytes, equal on all ranks."""
    try:
        free = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        free = None
    own = np.inf if free is None else 512.0 * int(free[1])
    return float(ranks.all(own).min())


def main(arguments: Sequence[str]) -> None:
    """Joins the job, measures, and writes the result on rank 0.

    Args:
        arguments: the file to write, and the job as JSON.
    """
    file, job = Path(arguments[0]), json.loads(arguments[1])
    torch.set_num_threads(job["threads"])
    if job["backend"] == "torch":
        import torch.distributed as dist

        dist.init_process_group("gloo")
        rank = dist.get_rank()
    else:
        import horovod.torch as hvd

        hvd.init()
        rank = hvd.rank()
    result = run(job)
    if rank == 0:
        file.write_text(json.dumps(result))
    if job["backend"] == "torch":
        dist.destroy_process_group()
