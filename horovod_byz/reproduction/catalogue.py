"""The catalogue: the artefacts and grids of a folder of experiments, each file read once."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from horovod_byz.reproduction.artefact import Artefact, Slice
from horovod_byz.reproduction.grid import Cell, Grid
from horovod_byz.training import config as configs
from horovod_byz.training.config import ConfigError

__all__ = ["Catalogue"]

GRIDS = "grids"


class Catalogue:
    """A folder of artefacts, with their grids in its folder `grids`.

    Args:
        folder: the folder; files that change later are not read again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[Path, dict[str, Any]] = {}
        self._artefacts: dict[tuple[Any, ...], Artefact] = {}
        self._grids: dict[tuple[Any, ...], Grid] = {}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All artefacts: the files with a title; others are configurations of single runs.

        Raises:
            ConfigError: if the folder has none.
        """
        names = [path.stem for path in self.folder.glob("*.toml") if "title" in self._read(path)]
        if not names:
            raise ConfigError(
                f"{self.folder} holds no experiments: run this in a checkout, or name the folder by "
                "--experiments"
            )
        return tuple(sorted(names, key=_natural))

    @property
    def artefacts(self) -> tuple[Artefact, ...]:
        """Every artefact in full, in the order of `names`."""
        return tuple(self.artefact(name) for name in self.names)

    def artefact(self, name: str, *, repeats: int | None = None, steps: int | None = None) -> Artefact:
        """An artefact, in full or shortened.

        Raises:
            ConfigError: if its file is missing, not TOML, or not an artefact.
        """
        key = name, repeats, steps
        if key not in self._artefacts:
            path = self.folder / f"{name}.toml"
            self._artefacts[key] = Artefact.read(path, repeats=repeats, steps=steps, read=self._read)
        return self._artefacts[key]

    def grid(self, name: str, steps: int | None = None) -> Grid:
        """A grid, with its own number of steps or another.

        Raises:
            ConfigError: if its file is missing, not TOML, or two runs would share a folder.
        """
        key = name, steps
        if key not in self._grids:
            self._grids[key] = Grid.read(self.folder / GRIDS / f"{name}.toml", steps, read=self._read)
        return self._grids[key]

    def cells(self, artefact: Artefact) -> tuple[Cell, ...]:
        """Every run that an artefact shows, each once."""
        runs = (cell for part in artefact.parts for cell in self.of(artefact, part))
        return tuple({(cell.grid, cell.name): cell for cell in runs}.values())

    def of(self, artefact: Artefact, part: Slice) -> tuple[Cell, ...]:
        """The runs of one slice or reference of an artefact."""
        return self.grid(part.runs or artefact.runs, artefact.steps).select(part.where, artefact.repeats)

    def _read(self, path: Path) -> dict[str, Any]:
        if path not in self._files:
            self._files[path] = configs.read(path)
        return self._files[path]


def _natural(name: str) -> list[Any]:
    """Sorts numbers in names by value: fig2 before fig10."""
    parts: list[Any] = []
    for part in name.split("-"):
        letters = part.rstrip("0123456789")
        parts.append((letters, int(part[len(letters) :] or 0)))
    return parts
