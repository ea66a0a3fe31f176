"""`horovod-byz compare` and `export`: run folders as tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from horovod_byz.cli.errors import explained

__all__ = ["compare", "export"]


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders that hold runs.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Show the final accuracies of runs, and the settings that differ."""
    with explained():
        from horovod_byz.cli import runs_command

        runs_command.compare(runs, as_json)


def export(
    results: Annotated[list[Path], typer.Argument(help="Folders that hold runs, such as results, or runs.")],
    csv: Annotated[Path | None, typer.Option(help="Write this CSV file.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write this Parquet file; needs pyarrow.")] = None,
) -> None:
    """Write the runs as a table: one row per evaluation, the settings as columns."""
    with explained():
        from horovod_byz.cli import runs_command

        runs_command.export(results, csv, parquet)
