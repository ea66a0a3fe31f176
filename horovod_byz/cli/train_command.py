"""The body of `horovod-byz train`: reads file and options, and runs here or on new ranks."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from horovod_byz.cli.errors import leave

__all__ = ["configuration", "run", "start_ranks"]

# The configuration key of each option of `train` with another name.
_KEYS = {
    "data": ("data", "name"),
    "partition": ("data", "partition"),
    "batch": ("data", "batch"),
    "lr": ("optimizer", "lr"),
    "momentum": ("optimizer", "momentum"),
}


def configuration(path: Path | None, given: dict[str, Any], changes: list[str], before: Path | None) -> Any:
    """The configuration: the TOML file or the earlier run in `before`, changed by options, then by --set."""
    from horovod_byz.training import config as configs
    from horovod_byz.training.runs import RunFolder

    data: dict[str, Any] = {}
    if path is not None:
        data = configs.read(path)
    elif before is not None and RunFolder(before).exists:
        data = RunFolder(before).config.to_data()
    for name, value in given.items():
        _put(data, _KEYS.get(name, (name,)), value)
    for change in changes:
        key, sign, text = change.partition("=")
        if not sign:
            raise configs.ConfigError(f"--set {change!r} is not of the form key=value")
        _put(data, tuple(key.strip().split(".")), configs.parse_literal(text))
    return configs.make(data)


def _put(data: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    for part in place[:-1]:
        if not isinstance(data.get(part), dict):
            data[part] = {"name": data[part]} if isinstance(data.get(part), str) else {}
        data = data[part]
    data[place[-1]] = value


def run(config: Any, launch: Any, events: bool) -> None:
    from horovod_byz.training import progress
    from horovod_byz.training.ranks import Ranks
    from horovod_byz.training.train import Stopped, train

    ranks = Ranks()
    with ExitStack() as stack:
        # Launchers pass output on line by line, even where (under MPI) a rank's output looks like a terminal.
        plain = progress.Lines() if ranks.size > 1 else progress.choose()
        reporter = progress.Events() if events else plain
        if isinstance(reporter, progress.Bars) and ranks.first:
            stack.enter_context(reporter)
        if ranks.first:
            reporter.note(
                f"rule {config.rule}, attack {config.attack} by {config.byzantine} of {config.workers}"
            )
        try:
            summary = train(config, launch, ranks=ranks, reporter=reporter)
        except Stopped as stopped:
            if ranks.first:
                reporter.note(f"Stopped. Continue from step {stopped.step} with: --resume --out {launch.out}")
            leave(130)
        if ranks.first:
            diverged = summary["diverged_at"]
            tail = f", diverged at step {diverged}" if diverged is not None else ""
            reporter.note(f"accuracy {100 * summary['accuracy']:.2f} %{tail}; the run is in {launch.out}")


def start_ranks(count: int) -> None:
    """Runs this same command on several ranks, and shows their progress here."""
    from horovod_byz.training.launcher import run_ranks
    from horovod_byz.training.progress import Bars, choose

    arguments = [*sys.argv[1:]]
    while "--ranks" in arguments:
        at = arguments.index("--ranks")
        del arguments[at : at + 2]
    arguments = [argument for argument in arguments if not argument.startswith("--ranks=")]
    with ExitStack() as stack:
        reporter = choose()
        if isinstance(reporter, Bars):
            stack.enter_context(reporter)
        run_ranks(count, ["-m", "horovod_byz.cli", *arguments, "--events"], reporter)
