"""The `horovod-byz` command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from horovod_byz.cli import theory_command, train_command
from horovod_byz.cli.errors import explained
from horovod_byz.cli.report_command import ReportCommand
from horovod_byz.common.errors import ExplainedError

app = typer.Typer(
    name="horovod-byz",
    help="Byzantine-resilient training on Horovod and PyTorch.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(theory_command.app, name="theory")


def _option(default: str, text: str, own: bool = False) -> Any:
    """An option of `train`; left out, the TOML file or the configuration's default (shown in help) counts."""
    return typer.Option(help=text + " Or your own: package.module:name." * own, show_default=default)


def _version(asked: bool) -> None:
    if asked:
        from horovod_byz import __version__

        typer.echo(f"horovod-byz {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Byzantine-resilient training on Horovod and PyTorch."""
    # As with `python -m`: names such as mypackage.rules:Nearest are looked up in the working folder first.
    if "" not in sys.path:
        sys.path.insert(0, "")


@app.command()
def train(
    config: Annotated[
        Path | None, typer.Argument(help="A TOML file; options given here override it.")
    ] = None,
    data: Annotated[
        str | None, _option("digits", "Such as mnist, fashion-mnist, cifar-10, cifar-100, digits.", own=True)
    ] = None,
    partition: Annotated[
        str | None,
        _option("iid", "Data of the workers: iid, dirichlet:alpha=0.1, gamma:0.3 or extreme.", own=True),
    ] = None,
    model: Annotated[str | None, _option("mlp", "Such as lenet, resnet18:width=16.", own=True)] = None,
    workers: Annotated[int | None, _option("20", "Logical workers of the whole job.")] = None,
    byzantine: Annotated[int | None, _option("0", "How many of them are Byzantine.")] = None,
    schedule: Annotated[
        str | None,
        _option("fixed", "Byzantine workers: first (the lowest), fixed (drawn once) or redrawn (each step)."),
    ] = None,
    attack: Annotated[str | None, _option("none", "Such as omniscient, gaussian:std=200.", own=True)] = None,
    attack_start: Annotated[int | None, _option("0", "First step of the attack.")] = None,
    rule: Annotated[
        str | None, _option("mean", "Such as median, krum:f=6; f defaults to --byzantine.", own=True)
    ] = None,
    collect: Annotated[
        str | None,
        _option("symmetric", "symmetric, root, root:dedicated=true, sharded or sharded:replicas=3."),
    ] = None,
    seed: Annotated[int | None, _option("0", "Same seed, same numbers.")] = None,
    steps: Annotated[int | None, _option("500", "Optimizer steps; with --resume it may be raised.")] = None,
    batch: Annotated[int | None, _option("32", "Images per worker and step.")] = None,
    lr: Annotated[float | None, _option("0.1", "Learning rate.")] = None,
    momentum: Annotated[float | None, _option("0.0", "Momentum of SGD.")] = None,
    worker_momentum: Annotated[
        float | None, _option("0.0", "Momentum that each worker sends in place of its gradient.")
    ] = None,
    evaluate_every: Annotated[int | None, _option("25", "Steps between evaluations.")] = None,
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
            "partition": partition,
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
            "worker_momentum": worker_momentum,
            "evaluate_every": evaluate_every,
        }.items()
        if value is not None
    }
    with explained(events):
        from horovod_byz.training.ranks import launched
        from horovod_byz.training.train import Launch

        if resume and overwrite:
            raise ValueError("--resume continues a run and --overwrite replaces it: give one of them")
        if resume and out is None and config is None and not given and not change:
            raise ValueError("--resume continues a run: name its folder with --out, or its configuration")
        started = launched()
        if ranks > 1 and started not in (1, ranks):
            raise ValueError(f"a launcher started {started} ranks: leave out --ranks {ranks}")
        made = train_command.configuration(config, given, change or [], out if resume else None)
        folder = out if out is not None else Path("runs") / made.slug
        launch = Launch(folder, data_dir, resume, overwrite, checkpoint_every, device, threads)
        if ranks > 1 and started == 1:
            launch.check(made, ranks)
            train_command.start_ranks(ranks)
        else:
            train_command.run(made, launch, events)


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

    Without a name: list all artefacts and the progress of each.
    """
    with explained():
        from horovod_byz.reproduction import overview
        from horovod_byz.reproduction.catalogue import Catalogue
        from horovod_byz.reproduction.compute import Workplace

        if names:
            from horovod_byz.training.device import find

            place = Workplace(results, data_dir, jobs, find(device), threads)
            overview.reproduce_all(names, Catalogue(experiments), place, repeats=repeats, steps=steps)
        else:
            overview.show(Catalogue(experiments), results)


@app.command(cls=ReportCommand)
def report(
    path: Annotated[Path, typer.Argument(help="A folder with a ledger.jsonl, such a file, or a run folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
    html: Annotated[Path | None, typer.Option(help="Also write this one-file page.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Show a live run until it ends.")] = False,
) -> None:
    """Name the worker, rank and host at fault, and what to do.

    Ends with 0 if nobody is at fault, 1 after an error, 2 if a culprit or suspect is named.
    """
    with explained():
        from horovod_byz.cli import report_command

        try:
            code = report_command.report(path, as_json, html, follow)
        except ValueError as error:  # never 2: that says that a culprit is named
            raise ExplainedError(str(error)) from error
    raise typer.Exit(code)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders that hold runs.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Show the final accuracies of runs, and the settings that differ."""
    with explained():
        from horovod_byz.cli import runs_command

        runs_command.compare(runs, as_json)


@app.command()
def export(
    results: Annotated[list[Path], typer.Argument(help="Folders that hold runs, such as results, or runs.")],
    csv: Annotated[Path | None, typer.Option(help="Write this CSV file.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write this Parquet file; needs pyarrow.")] = None,
) -> None:
    """Write the runs as a table: one row per evaluation, the settings as columns."""
    with explained():
        from horovod_byz.cli import runs_command

        runs_command.export(results, csv, parquet)


@app.command()
def plan(
    workers: Annotated[str, typer.Option(help="Workers, one on each rank.")],
    parameters: Annotated[str, typer.Option(help="Parameters of the model, such as 11.2M or 1e7.")],
    rule: Annotated[str, typer.Option(help="Such as median, multi-krum:f=5, detox:inner=mean,outer=median.")],
    bandwidth: Annotated[str, typer.Option(help="A machine's link, such as 10Gbit or 1.25GB/s.")],
    cores: Annotated[str, typer.Option(help="Cores of a machine.")],
    compute: Annotated[str, typer.Option(help="Forward and backward, such as 0.4s; default: left out.")] = "",
    memory: Annotated[str, typer.Option(help="Of a machine, such as 32GiB: says which ways fit.")] = "",
    ranks_per_host: Annotated[str, typer.Option(help="Ranks that share a machine.")] = "1",
    transport: Annotated[str, typer.Option(help="horovod or torch.")] = "horovod",
    redundancy: Annotated[str, typer.Option(help="Workers per redundancy group, for DETOX.")] = "3",
    replicas: Annotated[str, typer.Option(help="Aggregators of each shard, in the replicated way.")] = "3",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Estimate time, traffic and memory of a step for each way to collect; nothing is started."""
    with explained():
        from horovod_byz.cli import plan_command

        asked = plan_command.Asked(
            workers,
            parameters,
            rule,
            bandwidth,
            cores,
            compute,
            memory,
            ranks_per_host,
            transport,
            redundancy,
            replicas,
        )
        plan_command.show(asked, as_json)


@app.command()
def attack(
    rule: Annotated[
        str, typer.Option(help="Such as multi-krum:f=5; f defaults to --f. Or your own: package.module:name.")
    ],
    f: Annotated[int, typer.Option("--f", min=1, help="Byzantine workers.")],
    n: Annotated[int | None, typer.Option("--n", min=1, help="Workers, the Byzantine ones included.")] = None,
    d: Annotated[int, typer.Option("--d", min=1, help="Coordinates of a row.")] = 1000,
    signal: Annotated[float, typer.Option(help="Length of the honest mean, in honest deviations.")] = 0.5,
    rows: Annotated[
        Path | None, typer.Option(help="Honest rows of your own, (rows, coordinates), by numpy.save.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same rows and numbers.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the kernels.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Search the attack, and its strength, that moves a rule farthest from the honest mean."""
    with explained():
        from horovod_byz.cli import attack_command

        honest = attack_command.honest_rows(n, f, d, seed, signal, rows)
        attack_command.attack(rule, f, honest, seed, threads, as_json)


@app.command()
def doctor() -> None:
    """Show what is installed, what is missing, and how to fix it."""
    from horovod_byz.host import doctor as look

    raise typer.Exit(look.main())


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    options_metavar="[OPTIONS; see bench --help]",
)
def bench(context: typer.Context) -> None:
    """Time the rules (bench --help), or training steps beside Horovod's own (bench step --help)."""
    with explained():
        from horovod_byz import bench as timing

        code = timing.main(context.args)
    raise typer.Exit(code)


def main() -> None:
    """Entry point."""
    app()
