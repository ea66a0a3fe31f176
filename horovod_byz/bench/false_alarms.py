"""Who is suspected in clean and in attacked runs: the study behind docs/ledger.md, on real data.

`python -m horovod_byz.bench.false_alarms --folder results/ledger` writes results.json and README.md there.
A run is the digits of scikit-learn, a small MLP, 20 workers, batches of 32 and SGD, with the kernels, rules
and ledger that users run; it has no Horovod, since a verdict is the same on every rank.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from horovod_byz.bench import suspicion_page
from horovod_byz.bench.suspicion_runs import ATTACKS, RULES, Run, framed, replicas, walked
from horovod_byz.host.environment import describe

__all__ = ["ALPHA", "clean", "main", "power", "study"]

ALPHA = 1e-3
# Seeds of the reported runs; those used while the tests were designed lie below 10,000.
_CLEAN, _POWER = 1_000_000, 2_000_000
_CHANGE = 100  # where an attack begins whose workers have an honest past

Each = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


def clean(test: str, runs: int, steps: int, each: Each = map) -> dict[str, Any]:
    """How many clean runs accuse somebody; rules take turns.

    Args:
        test: "exchangeable" (shuffled data) or "own past" (labels dealt out by Dirichlet(0.1)).
        runs: number of runs.
        steps: of each run.
        each: maps a function over runs, such as a pool's.
    """
    names = list(RULES)
    planned = [Run(_CLEAN + k, names[k % len(names)], test, steps, ALPHA) for k in range(runs)]
    ended = list(zip(planned, each(walked, planned), strict=True))
    return {
        "test": test,
        "data": "shuffled" if test == "exchangeable" else "Dirichlet(0.1)",
        "runs": runs,
        "steps": steps,
        "accused": [
            {"seed": run.seed, "rule": run.rule, "workers": end["suspects"]}
            for run, end in ended
            if end["suspects"]
        ],
        "allowed": round(runs * ALPHA + 3 * (runs * ALPHA * (1 - ALPHA)) ** 0.5, 2),
        "two_camps": sum(end["camps"] for _, end in ended),
        "highest_log10": round(max(end["highest"] for _, end in ended), 2),
    }


def power(run: Run, seeds: int, each: Each = map) -> dict[str, Any]:
    """Steps from the start of an attack until the test names the first and the last of its workers.

    Args:
        run: the first of the runs.
        seeds: how many runs, of consecutive seeds.
        each: as for `clean`.
    """
    planned = [Run(**{**vars(run), "seed": run.seed + k}) for k in range(seeds)]
    first: list[int | None] = []
    last: list[int | None] = []
    honest = camps = 0
    for planned_run, end in zip(planned, each(walked, planned), strict=True):
        named = [step - run.start + 1 for worker, step in end["named"] if worker in planned_run.attackers]
        first.append(min(named, default=None))
        last.append(max(named) if len(named) == run.byzantine else None)
        honest += any(worker not in planned_run.attackers for worker in end["suspects"])
        camps += end["camps"]
    return {
        "attack": run.attack,
        "rule": run.rule,
        "byzantine": run.byzantine,
        "first": first,
        "last": last,
        "honest_accused": honest,
        "two_camps": camps,
    }


def study(runs: int, seeds: int, each: Each = map, steps: int = 120, attacked: int = 200) -> dict[str, Any]:
    """Everything; see `clean`, `power`, `framed` and `replicas`."""
    result: dict[str, Any] = {
        "alpha": ALPHA,
        "workers": 20,
        "seeds": seeds,
        "steps": attacked,
        "change": _CHANGE,
    }
    result["clean"] = [clean(test, runs, steps, each) for test in ("exchangeable", "own past")]
    result["exchangeable"] = [
        power(Run(_POWER, rule, "exchangeable", attacked, ALPHA, attack, byzantine), seeds, each)
        for attack in ATTACKS
        for rule in RULES
        for byzantine in (1, 4)
    ]
    result["own past"] = [
        power(Run(_POWER, rule, "own past", attacked, ALPHA, attack, 1, _CHANGE), seeds, each)
        for attack in ATTACKS
        for rule in RULES
    ]
    result["replicas"] = replicas(_POWER)
    result["framing"] = [
        framed(rule, 4, aim, [_POWER + number for number in range(seeds)], attacked, ALPHA)
        for rule in RULES
        for aim in ("away", "mirror")
    ]
    return result


def _one_thread() -> None:
    torch.set_num_threads(1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the study; writes results.json and README.md."""
    parser = argparse.ArgumentParser(prog="python -m horovod_byz.bench.false_alarms", description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="clean runs per test; default 1000")
    parser.add_argument("--seeds", type=int, default=3, help="attacked runs per cell; default 3")
    parser.add_argument("--jobs", type=int, default=2, help="processes; no effect on the results; default 2")
    parser.add_argument(
        "--folder", type=Path, required=True, help="where to write results.json and README.md"
    )
    given = parser.parse_args(arguments)
    with multiprocessing.get_context("spawn").Pool(given.jobs, _one_thread) as pool:
        result = {"machine": describe(), **study(given.runs, given.seeds, pool.imap)}
    given.folder.mkdir(parents=True, exist_ok=True)
    (given.folder / "results.json").write_text(json.dumps(result, indent=1) + "\n")
    (given.folder / "README.md").write_text(suspicion_page.page(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
