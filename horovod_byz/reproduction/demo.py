"""`make demo`: an attack destroys training with averaging, but not with robust rules."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from horovod_byz.training import config as configs
from horovod_byz.training.config import RunConfig
from horovod_byz.training.data import DatasetMissing, load_dataset
from horovod_byz.training.launcher import LaunchError, horovod_missing, run_ranks
from horovod_byz.training.plots import Curve, draw_curves
from horovod_byz.training.progress import Bars, Events, Reporter, choose
from horovod_byz.training.ranks import Ranks
from horovod_byz.training.runs import RunFolder
from horovod_byz.training.train import Launch, Stopped, prepare, train

WORKERS, BYZANTINE, RANKS = 20, 6, 2
# Three workers compute each batch here, three times as large, so that a step sees about as many images.
DETOX: dict[str, Any] = {
    "rule": "detox:inner=mean,outer=median,groups=6",
    "redundancy": 3,
    "data": {"batch": 96},
}
RULES = {
    "Mean": "mean",
    "Krum": "krum",
    "Multi-Krum": "multi-krum",
    "GeometricMedian": "geometric-median",
    "Median": "median",
    "MeanAroundMedian": "mean-around-median",
    "BrSGD": "brsgd",
}
REFERENCE = "Mean, no attack"
# A rule "trains on" within KEEPS points of the reference, and "is destroyed" within CHANCE points of
# guessing.
KEEPS, CHANCE = 5.0, 15.0


@dataclass(frozen=True)
class Result:
    """The result of one curve.

    Args:
        label: the curve's name.
        accuracy: final test accuracy in percent.
        diverged_at: step at which an honest loss was no longer finite; None if none.
        named: fractions of the Byzantine and of the honest rows with a suspect verdict, 0..1; None if there
            are no such rows.
        seconds: time the run took.
    """

    label: str
    accuracy: float
    diverged_at: int | None
    named: tuple[float | None, float | None]
    seconds: float


def curves(data: str, steps: int, seed: int) -> dict[str, RunConfig]:
    """The runs of the demo by label: the same seed, data and model for all."""
    common: dict[str, Any] = {
        "seed": seed,
        "steps": steps,
        "workers": WORKERS,
        "data": {"name": data},
        # The papers' model, one trusted server; fewest bytes, so the fastest on one machine.
        "collect": "root",
        "evaluate_every": max(steps // 20, 1),
    }
    attacked = {**common, "byzantine": BYZANTINE, "attack": "omniscient"}
    runs = {REFERENCE: configs.make(common)}
    runs |= {label: configs.make({**attacked, "rule": rule}) for label, rule in RULES.items()}
    replicated = {**attacked, **DETOX, "data": {**attacked["data"], **DETOX["data"]}}
    return runs | {"DETOX (r = 3)": configs.make(replicated)}


def run_all(runs: dict[str, RunConfig], out: Path, data_dir: Path | None, reporter: Reporter) -> None:
    """Trains every curve, on as many ranks as this process was launched with."""
    ranks = Ranks()
    dataset = prepare(next(iter(runs.values())), data_dir, download=False)
    for label, config in runs.items():
        launch = Launch(out / config.slug, overwrite=True, title=label)
        train(config, launch, ranks=ranks, dataset=dataset, reporter=reporter)


def results(runs: dict[str, RunConfig], out: Path) -> list[Result]:
    """Reads the results of the runs from their folders."""
    seen = []
    for label, config in runs.items():
        folder = RunFolder(out / config.slug)
        summary, verdicts = folder.summary, folder.verdicts
        seconds = sum(
            value
            for record in folder.read_lines("timings.jsonl")
            for name, value in record.items()
            if name != "step"
        )
        seen.append(
            Result(
                label,
                100 * summary["accuracy"],
                summary["diverged_at"],
                (verdicts["byzantine_rows_named"], verdicts["honest_rows_named"]),
                seconds,
            )
        )
    return seen


def sentence(seen: list[Result], classes: int = 10) -> str:
    """The results in one sentence, from the numbers alone."""
    reference, *rest = seen
    chance = 100 / classes
    kept = [result for result in rest if result.accuracy >= reference.accuracy - KEEPS]
    lost = [result for result in rest if result not in kept and result.accuracy <= chance + CHANCE]
    between = [result for result in rest if result not in kept and result not in lost]
    parts = [
        f"Without attack, Mean reached {reference.accuracy:.1f} % accuracy.",
        f"With {BYZANTINE} of {WORKERS} workers Byzantine,",
    ]
    said = []
    if lost:
        said.append(f"{_list(lost)} ended near guessing ({chance:.0f} %)")
    if between:
        said.append(f"{_list(between)} {'were' if len(between) > 1 else 'was'} held back")
    if kept:
        said.append(f"{_list(kept)} trained on to within {KEEPS:.0f} points of the run without attack")
    return " ".join(parts) + " " + "; ".join(said) + "."


def _list(seen: list[Result]) -> str:
    words = [f"{result.label} ({result.accuracy:.1f} %)" for result in seen]
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def table(seen: list[Result]) -> Table:
    """The results as a table."""
    made = Table(
        title=f"{WORKERS} workers, {BYZANTINE} of them Byzantine (omniscient attack)", title_justify="left"
    )
    for heading in (
        "rule",
        "accuracy",
        "diverged",
        "Byzantine named",
        "honest named",
        "seconds",
    ):
        made.add_column(heading, justify="left" if heading == "rule" else "right", no_wrap=heading == "rule")
    for result in seen:
        named = ["-" if part is None else f"{100 * part:.0f} %" for part in result.named]
        diverged = "-" if result.diverged_at is None else f"step {result.diverged_at}"
        made.add_row(result.label, f"{result.accuracy:.1f} %", diverged, *named, f"{result.seconds:.1f}")
    return made


def pick_data(data_dir: Path | None, console: Console) -> str:
    """MNIST where it is on disk, else the digits that scikit-learn brings."""
    try:
        load_dataset("mnist", data_dir, download=False)
    except DatasetMissing:
        console.print(
            "MNIST is not on this machine: using scikit-learn's digits "
            "(to use MNIST, let HOROVOD_BYZ_DATA name its folder)."
        )
        return "digits"
    return "mnist"


def show(runs: dict[str, RunConfig], out: Path, console: Console) -> None:
    """Prints the table and the sentence, and draws the figure."""
    seen = results(runs, out)
    config = next(iter(runs.values()))
    picture = out / "curves.png"
    name = "MNIST" if config.data.name == "mnist" else config.data.name
    draw_curves(
        [Curve(label, out / curve.slug, label == REFERENCE) for label, curve in runs.items()],
        picture,
        title=f"{BYZANTINE} Byzantine workers of {WORKERS}: which rules still train?",
        subtitle=f"{name}, MLP, omniscient attack (-1e20 x the sum of the honest gradients), "
        f"batch {config.data.batch} per worker, learning rate {config.optimizer.lr}, seed {config.seed}",
    )
    console.print(table(seen))
    console.print(sentence(seen), highlight=False)
    console.print(f"The picture: {picture}", highlight=False)


def main(arguments: list[str] | None = None) -> int:
    """Runs the demo: starts the ranks, shows their progress, then the table, figure and sentence."""
    parser = argparse.ArgumentParser(
        prog="python -m horovod_byz.reproduction.demo", description=(__doc__ or "").partition(": ")[2]
    )
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for the runs and the picture")
    parser.add_argument("--data-dir", type=Path, help="folder with MNIST in torchvision's layout")
    parser.add_argument("--data", choices=("mnist", "digits"), help="default: mnist if it is there")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--rank", action="store_true", help=argparse.SUPPRESS
    )  # this process is one of the ranks
    options = parser.parse_args(arguments)
    if options.rank:
        runs = curves(options.data, options.steps, options.seed)
        run_all(runs, options.out, options.data_dir, Events())
        return 0
    console, begun = Console(), time.monotonic()
    options.data = options.data or pick_data(options.data_dir, console)
    runs = curves(options.data, options.steps, options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        _train(runs, options, console)
    except (KeyboardInterrupt, Stopped):
        console.print("Stopped.")
        return 130
    except LaunchError as error:
        console.print(str(error), highlight=False, style="red")
        return 1
    show(runs, options.out, console)
    console.print(f"It took {time.monotonic() - begun:.0f} seconds.", highlight=False)
    return 0


def _train(runs: dict[str, RunConfig], options: argparse.Namespace, console: Console) -> None:
    with ExitStack() as stack:
        reporter = choose(sys.stdout)
        if isinstance(reporter, Bars):
            stack.enter_context(reporter)
        missing = horovod_missing()
        if missing is not None:
            reporter.note(f"{missing}: training in one process instead of {RANKS} Horovod ranks.")
            run_all(runs, options.out, options.data_dir, reporter)
            return
        reporter.note(
            f"{len(runs)} runs on {options.data}, {WORKERS} logical workers on {RANKS} Horovod ranks."
        )
        command = [
            "-m",
            "horovod_byz.reproduction.demo",
            "--rank",
            "--data",
            options.data,
            "--out",
            str(options.out),
        ]
        command += ["--steps", str(options.steps), "--seed", str(options.seed)]
        if options.data_dir is not None:
            command += ["--data-dir", str(options.data_dir)]
        run_ranks(RANKS, command, reporter)


if __name__ == "__main__":
    sys.exit(main())
