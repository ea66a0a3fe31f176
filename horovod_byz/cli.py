"""The `horovod-byz` command."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from horovod_byz import cli_theory

app = typer.Typer(
    name="horovod-byz",
    help="Byzantine-resilient training on Horovod and PyTorch.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(cli_theory.app, name="theory")

# How an option of `train` is called in the configuration.
_KEYS = {
    "data": ("data", "name"),
    "batch": ("data", "batch"),
    "lr": ("optimizer", "lr"),
    "momentum": ("optimizer", "momentum"),
}


@app.command()
def train(
    config: Annotated[
        Path | None, typer.Argument(help="A TOML file; options given here override it.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="mnist, fashion-mnist, cifar-10, cifar-100 or digits.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Such as mlp, lenet, resnet18:width=16.")] = None,
    workers: Annotated[int | None, typer.Option(help="Logical workers of the whole job.")] = None,
    byzantine: Annotated[int | None, typer.Option(help="How many of them are Byzantine.")] = None,
    schedule: Annotated[str | None, typer.Option(help="Who is Byzantine: first, fixed or redrawn.")] = None,
    attack: Annotated[str | None, typer.Option(help="Such as omniscient, gaussian:std=200.")] = None,
    attack_start: Annotated[int | None, typer.Option(help="First step of the attack.")] = None,
    rule: Annotated[
        str | None, typer.Option(help="Such as median, krum:f=6. f defaults to --byzantine.")
    ] = None,
    collect: Annotated[
        str | None, typer.Option(help="symmetric, root, root:dedicated=true or sharded.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same numbers.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images per worker and step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    momentum: Annotated[float | None, typer.Option(help="Momentum of SGD.")] = None,
    evaluate_every: Annotated[int | None, typer.Option(help="Steps between evaluations.")] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="Any other entry: --set data.normalise=standard.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default runs/<what it is>.")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of data sets, in torchvision's layout.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run that --out holds.")] = False,
    checkpoint_every: Annotated[
        int, typer.Option(min=0, help="Steps between checkpoints; 0: at the end.")
    ] = 0,
    device: Annotated[str, typer.Option(help="Where gradients are computed: cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="Threads per rank.")] = 1,
    ranks: Annotated[int, typer.Option(min=1, help="Start this many Horovod ranks on this machine.")] = 1,
    events: Annotated[bool, typer.Option("--events", hidden=True)] = False,
) -> None:
    """Train, with simulated Byzantine workers.

    On several ranks: horovodrun -np 2 horovod-byz train ..., or, on this machine with a live bar, --ranks 2.
    """
    given = {
        name: value
        for name, value in {
            "data": data,
            "model": model,
            "workers": workers,
            "byzantine": byzantine,
            "schedule": schedule,
            "attack": attack,
            "attack_start": attack_start,
            "rule": rule,
            "collect": collect,
            "seed": seed,
            "steps": steps,
            "batch": batch,
            "lr": lr,
            "momentum": momentum,
            "evaluate_every": evaluate_every,
        }.items()
        if value is not None
    }
    with _explained():
        from horovod_byz.experiments.ranks import launched
        from horovod_byz.experiments.train import Launch

        if ranks > 1 and launched() == 1:
            _start_ranks(ranks)
            return
        made = _configuration(config, given, change or [], out if resume else None)
        folder = out if out is not None else Path("runs") / made.slug
        launch = Launch(folder, data_dir, resume, overwrite, checkpoint_every, device, threads)
        _train(made, launch, events)


def _configuration(path: Path | None, given: dict[str, Any], changes: list[str], before: Path | None) -> Any:
    """The TOML file, or what an earlier run in `before` had; then the options; then each --set."""
    from horovod_byz.experiments import config as configs

    data: dict[str, Any] = {}
    if path is not None:
        data = configs.read(path)
    elif before is not None and (before / "config.toml").is_file():
        data = configs.read(before / "config.toml")
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


def _train(config: Any, launch: Any, events: bool) -> None:
    from horovod_byz.experiments import progress
    from horovod_byz.experiments.ranks import Ranks
    from horovod_byz.experiments.train import Stopped, train

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
            _leave(130)
        if ranks.first:
            diverged = summary["diverged_at"]
            tail = f", diverged at step {diverged}" if diverged is not None else ""
            reporter.note(f"accuracy {100 * summary['accuracy']:.2f} %{tail}; the run is in {launch.out}")


def _start_ranks(count: int) -> None:
    """Run this same command on several ranks, and show their progress here."""
    from horovod_byz.experiments.launcher import run_ranks
    from horovod_byz.experiments.progress import Bars, choose

    arguments = [*sys.argv[1:]]
    while "--ranks" in arguments:
        at = arguments.index("--ranks")
        del arguments[at : at + 2]
    arguments = [one for one in arguments if not one.startswith("--ranks=")]
    with ExitStack() as stack:
        reporter = choose()
        if isinstance(reporter, Bars):
            stack.enter_context(reporter)
        run_ranks(count, ["-m", "horovod_byz.cli", *arguments, "--events"], reporter)


@app.command()
def reproduce(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Artefacts, such as xie2018-fig4; or sets: quick, cpu, gpu, all."),
    ] = None,
    device: Annotated[str, typer.Option(help="Where gradients are computed: cpu or cuda.")] = "cpu",
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at once; default one per core.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads per run; default 1.")] = None,
    repeats: Annotated[int | None, typer.Option(min=1, help="Only the first seeds: a reduced form.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="So many steps instead: a reduced form.")] = None,
    experiments: Annotated[Path, typer.Option(help="Folder of the experiment files.")] = Path(
        "launch/experiments"
    ),
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("results"),
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of data sets, in torchvision's layout.")
    ] = None,
) -> None:
    """Reproduce tables and figures of the papers: compute the runs that are missing, then show them.

    Without a name: list what there is and how far it is.
    """
    with _explained():
        from horovod_byz.experiments import overview
        from horovod_byz.experiments.compute import Workplace

        if names:
            from horovod_byz.experiments.device import find

            place = Workplace(results, data_dir, jobs, find(device), threads)
            overview.reproduce_all(names, experiments, place, repeats=repeats, steps=steps)
        else:
            overview.show(experiments, results)


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="A run folder.")]) -> None:
    """Show how a run went, and how each worker was treated."""
    with _explained():
        from horovod_byz.experiments.report import show

        show(folder)


@app.command()
def doctor() -> None:
    """Show what is installed, what is missing, and how to mend it."""
    from horovod_byz import doctor as look

    raise typer.Exit(look.main())


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
)
def bench(context: typer.Context) -> None:
    """Time the rules against reading every row once (bench --help lists its options)."""
    from horovod_byz import bench as timing

    raise typer.Exit(timing.main(context.args))


@contextmanager
def _explained() -> Iterator[None]:
    """Turn the errors that explain themselves into one message and an exit code."""
    from horovod_byz.collect import TransportError
    from horovod_byz.experiments.config import ConfigError
    from horovod_byz.experiments.launcher import LaunchError
    from horovod_byz.experiments.runs import RunError

    try:
        yield
    except (ConfigError, ValueError) as error:
        _fail(str(error), 2)
    except (RunError, LaunchError, FileNotFoundError) as error:
        _fail(str(error), 1)
    except TransportError as error:
        _fail(str(error), 1, at_once=True)
    except KeyboardInterrupt:
        _leave(130)


def _fail(message: str, code: int, at_once: bool = False) -> NoReturn:
    typer.secho(f"horovod-byz: {message}", err=True, fg=typer.colors.RED)
    if at_once:
        _leave(code)
    raise typer.Exit(code)


def _leave(code: int) -> NoReturn:
    """End this process at once: with ranks gone or silent, Horovod's own shutdown would wait for them."""
    from horovod_byz.experiments.ranks import launched

    if launched() == 1:
        raise typer.Exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    """Entry point."""
    app()


if __name__ == "__main__":
    main()
