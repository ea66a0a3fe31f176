"""Writes tables of runs for other programs: CSV, or Parquet through pyarrow."""

from __future__ import annotations

import csv
import importlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from horovod_byz.common.extras import require
from horovod_byz.training.runs import replace_file
from horovod_byz.training.tabular import Value

__all__ = ["write_csv", "write_parquet"]

Rows = Sequence[Mapping[str, Value]]


def write_csv(path: Path, columns: Sequence[str], rows: Rows) -> None:
    """Writes a CSV file with a line of headings; what is missing is empty.

    Raises:
        RunError: if it cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if value is None else value for name, value in row.items()} for row in rows)
    replace_file(path, text.getvalue().encode())


def write_parquet(path: Path, columns: Sequence[str], rows: Rows) -> None:
    """Writes a Parquet file; what is missing is null, and a column of mixed types is text.

    Raises:
        MissingExtraError: if pyarrow is not installed; the message has the command that installs it.
        RunError: if it cannot be written.
    """
    require("export", "pyarrow")
    arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    table = arrow.table({name: _typed([row.get(name) for row in rows]) for name in columns})
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    replace_file(path, buffer.getvalue())


def _typed(values: Sequence[Value]) -> list[Any]:
    """Values of one type: all whole numbers or all numbers as they are, otherwise text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float}:
        return [None if value is None else float(value) for value in values] if float in kinds else [*values]
    if len(kinds) == 1:
        return [*values]
    return [None if value is None else str(value) for value in values]
