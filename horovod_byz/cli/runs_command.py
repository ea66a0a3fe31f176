"""The bodies of `horovod-byz export` and `compare`, which read run folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from horovod_byz.common.terminal import console
from horovod_byz.training import tabular
from horovod_byz.training.compare import compared, plain
from horovod_byz.training.export import write_csv, write_parquet

__all__ = ["compare", "export"]


def export(folders: Sequence[Path], csv: Path | None, parquet: Path | None) -> None:
    """Writes one row per evaluation of every run in the folders.

    Raises:
        ValueError: if no file is named.
        RunError: if a folder holds no run, or a file cannot be written.
        MissingExtraError: if pyarrow is asked for and not installed.
    """
    if csv is None and parquet is None:
        raise ValueError("name the file to write: --csv FILE or --parquet FILE")
    runs = tabular.kept(folders)
    columns, rows = tabular.rows(runs)
    for path, write in ((csv, write_csv), (parquet, write_parquet)):
        if path is not None:
            write(path, columns, rows)
            print(f"{path}: {len(rows)} evaluations of {len(runs)} runs")


def compare(folders: Sequence[Path], as_json: bool) -> None:
    """Prints the runs' final accuracies, and the settings that differ.

    Raises:
        RunError: if a folder holds no run.
    """
    runs = tabular.kept(folders)
    if as_json:
        print(json.dumps(plain(runs), indent=2, allow_nan=False))
        return
    screen = console()
    for part in compared(runs):
        screen.print(part, highlight=False)
