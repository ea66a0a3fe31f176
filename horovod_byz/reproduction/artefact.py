"""An artefact: a table or figure of a paper as a TOML file, with its runs and the claims it tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from horovod_byz.common.words import known
from horovod_byz.reproduction.claims import Claim, Labels
from horovod_byz.reproduction.grid import Read, read_like
from horovod_byz.training import config as configs
from horovod_byz.training.config import ConfigError

__all__ = ["Artefact", "Bar", "Figure", "Published", "Reference", "Slice", "Table"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Slice(_Part):
    """Some runs of a grid, by default of the artefact's; `labels` are shown in place of the grid's own."""

    where: Labels = Field(default_factory=dict)
    runs: str = ""
    labels: dict[str, str] = Field(default_factory=dict)


class Reference(Slice):
    """Runs that the others are compared with; drawn dashed, and first in the table."""

    name: str


class Table(_Part):
    """The axes that form the rows and the columns of the table."""

    rows: tuple[str, ...] = ("rule",)
    columns: tuple[str, ...] = ()
    levels: tuple[float, ...] = Field(default=(), description="list also the steps to these levels")


class Bar(_Part):
    """One bar of calculated quantities: part by part, in order."""

    name: str
    parts: dict[str, str]


class Figure(_Part):
    """The figure of an artefact.

    "curves" over steps, a "sweep" of final values over an axis, "pairs" of dots, a "heatmap" of the worst
    final values over the axis `worst`, at the label of the axis `best` whose worst is best (a learning rate
    chosen against the worst attack); or "bars" of calculated quantities. `lowest` is where a sweep's axis of
    percent begins, unless a value lies below.
    """

    kind: Literal["curves", "sweep", "pairs", "heatmap", "bars", "none"] = "curves"
    lines: str = "rule"
    panels: tuple[str, ...] = ()
    x: str = ""
    y: str = ""
    worst: str = "attack"
    best: str = ""
    x_label: str = ""
    metrics: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    bars: tuple[Bar, ...] = ()
    lowest: float = Field(0, ge=0, lt=100)

    @model_validator(mode="after")
    def _has_axes(self) -> Figure:
        needed = {"sweep": "x", "pairs": "x", "heatmap": "xy"}.get(self.kind, "")
        missing = [axis for axis in needed if not getattr(self, axis)]
        if missing:
            raise ValueError(
                f"a figure of the kind {self.kind!r} needs {' and '.join(missing)}: name an axis of the "
                f'grid, such as {missing[0]} = "f"'
            )
        return self


class Published(_Part):
    """A number that the paper prints."""

    where: Labels
    value: float
    note: str = ""


class Artefact(_Part):
    """A table or figure of a paper.

    Attributes:
        name: the target's name, that of the file.
        title: what it shows, in a line.
        paper, shows: which paper, and what of it ("Figure 4"); no paper: an experiment of one's own, which
            keeps every axis (see `own`) and shows all runs of its grid where it names no slices.
        runs: the grid that its slices come from.
        growing: show the seeds that are there, one at least of each series, while others are still missing.
        calculate: instead of runs, the name of a calculation.
        reduced: how the runs are smaller than the paper's; empty if they are not.
        full: the name of its full form; by default its own without "-small".
        sets: what it belongs to: "quick", "cpu", "gpu", "evidence".
        minutes: what it takes on two cores, or on the GPU for the set "gpu".
        published: the paper's numbers; `says` is its statement in words.
        printed_on: the data of the paper's numbers where other data ran here (", on CIFAR-100").
        differences: what differs from the paper and why, in words.
        explanations: why claims fail, by their words: for a file that takes its claims over from another.
    """

    name: str
    title: str
    paper: str = ""
    shows: str = ""
    runs: str = ""
    growing: bool = False
    calculate: str = ""
    reduced: str = ""
    full: str = ""
    sets: tuple[str, ...] = ()
    minutes: float = 1
    metric: Literal["accuracy", "top3", "loss"] = "accuracy"
    slices: tuple[Slice, ...] = ()
    references: tuple[Reference, ...] = ()
    table: Table = Table()
    figure: Figure = Figure()
    claims: tuple[Claim, ...] = ()
    published: tuple[Published, ...] = ()
    says: str = ""
    printed_on: str = ""
    differences: tuple[str, ...] = ()
    explanations: dict[str, str] = {}
    repeats: int | None = Field(default=None, ge=1, description="use only the first seeds")
    steps: int | None = Field(default=None, ge=1, description="run so many steps instead of the grid's")

    @model_validator(mode="before")
    @classmethod
    def _explain(cls, data: Any) -> Any:
        if not data.get("paper") and data.get("runs") and not data.get("slices"):
            data = {**data, "slices": [{}]}
        claims = [dict(claim) for claim in data.get("claims", ())]
        for words, explanation in data.get("explanations", {}).items():
            known(words, [claim.get("claim", "") for claim in claims], "claim in explanations")
            for claim in claims:
                if claim.get("claim") == words:
                    claim["explanation"] = explanation
        return {**data, "claims": claims}

    @classmethod
    def read(
        cls, path: Path, *, repeats: int | None = None, steps: int | None = None, read: Read = configs.read
    ) -> Artefact:
        """Reads the file of an artefact.

        Args:
            path: the file.
            repeats: use only so many seeds.
            steps: run so many steps instead of the grid's.
            read: reads a TOML file as plain data.

        Raises:
            ConfigError: if it is missing, not TOML, or not an artefact.
        """
        changes = {"name": path.stem, "repeats": repeats, "steps": steps}
        try:
            return cls.model_validate({**read_like(path, read), **changes})
        except ValidationError as error:
            lines = [
                f"{'.'.join(map(str, fault['loc']))}: {fault['msg'].removeprefix('Value error, ')}"
                for fault in error.errors()
            ]
            raise ConfigError(f"{path}: " + "; ".join(lines)) from error

    @property
    def parts(self) -> tuple[Slice, ...]:
        """Its references and slices."""
        return (*self.references, *self.slices)

    @property
    def folder(self) -> str:
        """The folder of its table and figure; a shortened form has one of its own."""
        ends = {"repeats": self.repeats, "steps": self.steps}
        return self.name + "".join(f"-{word}{number}" for word, number in ends.items() if number is not None)

    @property
    def reduction(self) -> str:
        """Its differences in size from the paper's, as text; empty if there are none."""
        parts = [self.reduced] if self.reduced else []
        if self.repeats is not None:
            parts.append(f"{self.repeats} repeat{'s' if self.repeats > 1 else ''} only")
        if self.steps is not None:
            parts.append(f"{self.steps} steps only")
        return "; ".join(parts)
