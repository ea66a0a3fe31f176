"""`horovod-byz report`: the conclusion of a run, for a person, a program, or a browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from typer.core import TyperCommand

from horovod_byz.common.extras import require
from horovod_byz.common.terminal import console
from horovod_byz.ledger.history import files, read
from horovod_byz.ledger.lines import LedgerFileError
from horovod_byz.ledger.report.follow import follow
from horovod_byz.ledger.report.overview import Overview, overview
from horovod_byz.ledger.report.plain import plain
from horovod_byz.ledger.report.screen import print_on, screen

if TYPE_CHECKING:
    from horovod_byz.training.report import Evaluated

__all__ = ["ReportCommand", "report"]

_OF_A_RUN = (
    *("config.toml", "run.json", "metrics.jsonl", "checkpoint.pt"),
    *("summary.json", "verdicts.json", "metrics.jsonl.gz"),  # of earlier versions
)


class ReportCommand(TyperCommand):
    """A command that ends with 1 for wrong usage too, since 2 says that a culprit is named."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """As usual, with another exit code in the error."""
        try:
            return super().make_context(*arguments, **options)
        except Exception as error:
            if getattr(error, "exit_code", None) == 2:
                error.exit_code = 1  # type: ignore[attr-defined]
            raise


def report(path: Path, as_json: bool, page: Path | None, live: bool) -> int:
    """Shows a run, and returns the exit code: 0, or 2 where a culprit is named.

    Raises:
        LedgerFileError: if there is neither a ledger nor a run of `horovod-byz train`.
        MissingExtraError: if the page, or the run, needs a package that is not installed.
    """
    if page is not None:
        require("report", "jinja2")
    if live and _trained(path) and not files(path):
        raise LedgerFileError(f"{path} holds no ledger.jsonl to follow: leave out --follow")
    if live:
        follow(path, Console(stderr=True) if as_json else console())
    trained = _evaluated(path)
    shown = trained.shown if trained is not None else overview(read(path))
    if page is not None:
        _write_page(page, shown, trained)
    if as_json:
        extra = {"training": trained.plain} if trained is not None else {}
        typer.echo(json.dumps({**plain(shown), **extra}, indent=1, allow_nan=False))
    elif trained is not None:
        print_on(console(), trained.lines())
    else:
        print_on(console(), screen(shown))
    if page is not None and not as_json:
        typer.echo(f"page: {page}")
    return shown.conclusion.code


def _trained(path: Path) -> bool:
    """Whether `horovod-byz train` wrote the folder, or some of a run's files are left there."""
    return any((path / name).exists() for name in _OF_A_RUN)


def _evaluated(path: Path) -> Evaluated | None:
    """The run of `horovod-byz train` at a folder, or None."""
    if not _trained(path):
        return None
    require("report", "pydantic", "tomli_w")
    from horovod_byz.training.report import load

    return load(path)


def _write_page(page: Path, shown: Overview, trained: Evaluated | None) -> None:
    from horovod_byz.ledger.report.page import render

    page.write_text(render(shown, trained.plain if trained is not None else None), encoding="utf-8")
