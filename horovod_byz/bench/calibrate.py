"""Fits the constants of `horovod-byz plan` to the committed measurements.

    python -m horovod_byz.bench calibrate --results results/bench --write horovod_byz/plan/constants.json

The kernels' seconds per value are those of `results.json` (`make bench`), at the largest d. The rest is
fitted to the parts of all steps under `step/` (`make bench-step`) that were measured on a quiet machine and
on loopback, unless an earlier version did: it sent other bytes. Non-negative least squares, each part weighed
by its step's time, so that an error counts as a share of a step.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import horovod_byz as hb
from horovod_byz.collect import Collector
from horovod_byz.common.extras import require
from horovod_byz.plan.constants import Constants, Fit
from horovod_byz.plan.estimate import Cluster, Estimate, of_collector, own_mean
from horovod_byz.plan.passes import passes

__all__ = ["calibrated", "main", "predictions"]

_FITTED = ("operation", "direct", "relayed", "ring", "around", "apply", "rules")
_LEAST_D = 10**6
# Part of a step's bytes that Horovod may add below our calls, at the smallest model.
_SAME = 0.05
_WAYS = {
    "symmetric": hb.Symmetric(),
    "root": hb.Root(),
    "sharded": hb.Sharded(),
}


def calibrated(results: Path) -> dict[str, Any]:
    """The content of constants.json, from the folder `results/bench`."""
    require("train", "sklearn")  # which brings scipy
    from scipy.optimize import nnls

    kernels = of_kernels(json.loads((results / "results.json").read_text()))
    zero = Constants(kernels, Fit(0, 0.0, 0.0, ()))
    jobs = [todays(job, zero) for job in quiet(results)]
    units = [_with(zero, {name: 1.0}) for name in _FITTED]
    rows, wanted = [], []
    for job in jobs:
        columns = [list(predictions(job, unit, compute=0.0)) for unit in units]
        for i, variant in enumerate(job["variants"]):
            step = variant["ms"]["step"]["mid"] / 1e3
            for part, seconds in parts(variant, job):
                rows.append([sum(column[i].seconds[name] for name in part) / step for column in columns])
                wanted.append(seconds / step)
    solution, _ = nnls(np.array(rows), np.array(wanted))
    fitted = {name: float(f"{value:.4g}") for name, value in zip(_FITTED, solution, strict=True)}
    return {**fitted, "kernels": kernels, "fit": errors(jobs, _with(zero, fitted))}


def _with(constants: Constants, seconds: dict[str, Any]) -> Constants:
    return replace(constants, **seconds)


def of_kernels(result: dict[str, Any]) -> dict[str, dict[int, float]]:
    """Seconds of one value by kernel and number of rows: the largest d's, of one core."""
    seconds: dict[str, dict[int, float]] = {}
    for cell in sorted(result["cells"], key=lambda cell: cell["d"]):
        if cell["d"] < _LEAST_D:
            continue
        for timing in cell["timings"]:
            if timing["kind"] in ("kernel", "yardstick"):
                value = timing["cpu_ms"] / 1e3 / (cell["n"] * cell["d"])
                seconds.setdefault(timing["name"], {})[cell["n"]] = float(f"{value:.4g}")
    used = ("read floor", "mean", "median", "trimmed mean", "mean around median", "sign majority", "vote")
    return {name: seconds[name] for name in (*used, "BrSGD statistics", "squared distances")}


def quiet(results: Path) -> Iterator[dict[str, Any]]:
    """The jobs that say something: undisturbed, and on the loopback, whose rate is not theirs to choose."""
    for file in sorted(results.glob("step/*/results.json")):
        for job in json.loads(file.read_text())["jobs"]:
            if not job["loaded"] and job["network"] == "loopback":
                # The model knows no communication inside a backward pass.
                apart = [variant for variant in job["variants"] if "overlap" not in variant["name"]]
                yield {**job, "variants": apart}


def todays(job: dict[str, Any], constants: Constants) -> dict[str, Any]:
    """The job without variants that sent other bytes than today's code does: an earlier version's."""
    kept = [
        variant
        for variant, estimate in zip(job["variants"], predictions(job, constants, 0.0), strict=True)
        if variant["sent_bytes"] is None or abs(max(variant["sent_bytes"]) / estimate.sent - 1) < _SAME
    ]
    return {**job, "variants": kept}


def predictions(job: dict[str, Any], constants: Constants, compute: float) -> Iterator[Estimate]:
    """The model's estimate of each variant of a job."""
    cluster = Cluster(
        workers=job["ranks"],
        d=job["d"],
        cores=job["machine"]["cores"],
        ranks_per_host=job["ranks"],
        compute=compute,
        transport="torch" if job["backend"] == "torch" else "horovod",
    )
    for variant in job["variants"]:
        if variant["rule"] is None:
            yield own_mean(cluster, constants)
            continue
        rule = eval(variant["rule"], vars(hb))  # noqa: S307 - the repr of a rule, in a file of ours
        made = passes(rule, job["ranks"])
        yield of_collector(variant["name"], way_of(variant["name"]), made, cluster, constants)


def way_of(name: str) -> Collector:
    """The way to collect in a variant's name, such as "Median, sharded:replicas=3"."""
    way = name.rpartition(", ")[2]
    return hb.Sharded(int(way.rpartition("=")[2])) if "replicas" in way else _WAYS[way]


def parts(variant: dict[str, Any], job: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], float]]:
    """Measured seconds as they may be compared: names of parts, and their sum.

    The slowest rank's parts: under a root the others wait for its arithmetic while they wait for the result;
    and the own mean begins in the backward pass and ends in what surrounds it.
    """
    taken = {name: spread["mid"] / 1e3 for name, spread in variant["ms"].items()}
    yield ("apply",), taken["apply"]
    if variant["rule"] is None:
        yield ("return",), taken["step"] - compute_of(job) - taken["apply"]
        return
    yield ("around",), taken["around"]
    yield ("collect",), taken["collect"]
    if way_of(variant["name"]) == hb.Root():
        yield ("aggregate", "return"), taken["aggregate"] + taken["return"]
    else:
        yield ("aggregate",), taken["aggregate"]
        yield ("return",), taken["return"]


def compute_of(job: dict[str, Any]) -> float:
    """Seconds of forward and backward: the median over our variants, which send nothing meanwhile."""
    ours = (variant for variant in job["variants"] if variant["rule"] is not None)
    return statistics.median(float(variant["ms"]["compute"]["mid"] / 1e3) for variant in ours)


def errors(jobs: Sequence[dict[str, Any]], constants: Constants) -> dict[str, Any]:
    """The relative errors of whole steps."""
    wrong = [
        abs(estimate.step / (variant["ms"]["step"]["mid"] / 1e3) - 1)
        for job in jobs
        for variant, estimate in zip(
            job["variants"], predictions(job, constants, compute_of(job)), strict=True
        )
    ]
    machines = sorted({f"{job['machine']['cpu']}, {job['machine']['cores']} cores" for job in jobs})
    return {
        "steps": len(wrong),
        "worst": math.ceil(1000 * max(wrong)) / 1000,
        "typical": round(statistics.median(wrong), 3),
        "machines": machines,
    }


def main(arguments: Sequence[str]) -> int:
    """Writes the constants, or shows them."""
    options = argparse.ArgumentParser(prog="python -m horovod_byz.bench calibrate", description=__doc__)
    options.add_argument("--results", type=Path, default=Path("results/bench"))
    options.add_argument("--write", type=Path, help="default: print them")
    given = options.parse_args(arguments)
    text = json.dumps(calibrated(given.results), indent=1) + "\n"
    if given.write is None:
        print(text, end="")
    else:
        given.write.write_text(text)
    return 0
