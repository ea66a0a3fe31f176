"""The price of a robust step: `horovod-byz bench step`, jobs of ranks one after another.

Each machine's results have a folder of their own, so that none is overwritten by another kind's.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from horovod_byz.bench import step_jobs
from horovod_byz.bench.step_jobs import QUIET, Job
from horovod_byz.bench.step_models import MODELS
from horovod_byz.bench.step_page import headline, page
from horovod_byz.common.errors import ExplainedError
from horovod_byz.common.extras import require

__all__ = ["folder_of", "full", "main", "measure", "parser", "write"]

_PATIENCE = 10  # seconds to wait for a quiet machine


def full(rounds: int) -> list[Job]:
    """The jobs of the long form on loopback; every rule by every way to collect in one of them."""
    jobs = [
        Job(backend, ranks, model, rounds=rounds)
        for backend in ("gloo", "mpi", "torch")
        for model in ("small", "large", "transformer")
        for ranks in (2, 4, 8)
    ]
    whole = Job(rounds=rounds)
    return [Job(rounds=rounds, every=True) if job == whole else job for job in jobs]


def measure(
    jobs: Iterable[Job],
    folder: Path | None,
    *,
    anyway: bool = False,
    start: Callable[[Job], dict[str, Any]] = step_jobs.start,
) -> list[dict[str, Any]]:
    """Runs jobs one after another; writes after each, so that Ctrl-C loses none that was measured.

    Args:
        jobs: the jobs.
        folder: where each machine's folder lies; None to write nothing.
        anyway: measure on a loaded machine too; the results then say so.
        start: runs a job.

    Raises:
        ExplainedError: if other processes keep the machine busy.
    """
    results = []
    for job in jobs:
        now = step_jobs.load()
        for _ in range(0 if anyway else _PATIENCE):  # the ranks of the job before may be ending
            if now["cores"] <= QUIET:
                break
            now = step_jobs.load()
        if now["cores"] > QUIET and not anyway:
            raise ExplainedError(
                f"other processes use {now['cores']:.2f} cores of this machine (load average "
                f"{now['average'][0]:.1f}), so that times mean little: wait until they have ended, or say "
                "--anyway for figures that are marked as those of a loaded machine"
            )
        result = start(job)
        result["loaded"] = now["cores"] > QUIET or result["others_cores"] > QUIET
        results.append(result)
        print(page([result]).partition("## ")[2].partition("\n## ")[0], flush=True)
        if folder is not None:
            write([result], folder)
    return results


def folder_of(machine: dict[str, Any]) -> str:
    """The name of a machine's folder: its processor, cores and instruction set."""
    words = f"{machine['cpu']} {machine['cores']} cores {machine['level']}"
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def write(results: list[dict[str, Any]], folder: Path) -> None:
    """Adds results to their machine's results.json, and makes its page and figure anew.

    A job replaces an earlier one of the same backend, ranks, model and network.
    """
    place = folder / folder_of(results[0]["machine"])
    place.mkdir(parents=True, exist_ok=True)
    file = place / "results.json"
    jobs = json.loads(file.read_text())["jobs"] if file.exists() else []
    kept = {_key(job): job for job in [*jobs, *results]}
    partial = place / "results.json.partial"
    partial.write_text(json.dumps({"jobs": list(kept.values())}, indent=1) + "\n")
    partial.replace(file)
    (place / "README.md").write_text(page(kept.values()))
    from horovod_byz.bench import step_plot  # here, since the core install has no matplotlib

    step_plot.draw(kept.values(), place / "step.png")


def _key(job: dict[str, Any]) -> str:
    return json.dumps([job[name] for name in ("backend", "ranks", "model", "network")])


def parser() -> argparse.ArgumentParser:
    """The options, of `tools/bench_step.py` too."""
    made = argparse.ArgumentParser(
        prog="horovod-byz bench step",
        description="Times training steps with each rule and way to collect against the framework's own "
        "optimizer, in turns in one job of ranks on this machine; 4 ranks, Gloo, d = 1.12e7 by default.",
    )
    made.add_argument("--ranks", type=int, nargs="+", default=[4], help="default 4")
    made.add_argument("--backend", nargs="+", choices=("gloo", "mpi", "torch"), default=["gloo"])
    made.add_argument("--model", nargs="+", choices=list(MODELS), default=["large"])
    made.add_argument("--rounds", type=int, default=7, help="how often each variant is timed; default 7")
    made.add_argument("--every", action="store_true", help="every rule by every way to collect")
    made.add_argument("--full", action="store_true", help="2, 4 and 8 ranks, all backends, three models")
    made.add_argument("--anyway", action="store_true", help="on a loaded machine too")
    made.add_argument("--folder", type=Path, help="where each machine's results lie; default: write none")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the jobs that the options name; shows a table each, and the line for the README."""
    options = parser()
    given = options.parse_args(arguments)
    if given.rounds < 1 or min(given.ranks) < 2:
        options.error("--rounds has to be at least 1, and --ranks at least 2")
    if given.folder:
        require("report", "matplotlib", "pydantic", "tomli_w")  # an error now, not after minutes of timing
    jobs = [
        Job(backend, ranks, model, rounds=given.rounds, every=given.every)
        for backend in given.backend
        for model in given.model
        for ranks in given.ranks
    ]
    results = measure(full(given.rounds) if given.full else jobs, given.folder, anyway=given.anyway)
    print(headline(results))
    return 0
