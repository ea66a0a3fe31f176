"""How far a build by CMake's Makefiles is, and what of an interrupted one can be used again."""

from __future__ import annotations

import re
import struct
import sys
import time
from pathlib import Path

# Object files as the rules of a build.make name them.
RULE = re.compile(r"^(\S+\.o): ", re.MULTILINE)
COMPILING = re.compile(rb"Building C(?:XX)? object \S*?([^/\s]+)\.o\b")
EVERY = 30.0  # seconds from one line to the next where the output is not a terminal


def objects(tree: Path) -> set[Path]:
    """Every object file that the Makefiles under `tree` make, compiled yet or not."""
    wanted = set()
    for rules in tree.rglob("build.make"):
        if {"CMakeScratch", "CMakeTmp"} & set(rules.parts):  # CMake's own trials
            continue
        # CMakeFiles/NAME.dir/build.make lies in the folder that its paths start from; make runs at the top.
        top = next((folder for folder in rules.parents if (folder / "CMakeCache.txt").exists()), rules.parent)
        wanted |= {top / name for name in RULE.findall(rules.read_text(errors="replace"))}
    return wanted


def whole(compiled: Path) -> bool:
    """Whether an ELF object file is complete; its header says where the last part of it ends."""
    with compiled.open("rb") as file:
        header = file.read(64)
    if len(header) < 64 or header[:5] != b"\x7fELF\x02":
        return False
    (sections,) = struct.unpack_from("<Q", header, 40)
    size, count = struct.unpack_from("<HH", header, 58)
    return sections > 0 and sections + size * count <= compiled.stat().st_size


def drop_partial(tree: Path) -> int:
    """Removes object files that a killed compiler left half-written, which make would take for finished.

    Returns:
        How many are left, and need not be compiled again.
    """
    for compiled in tree.rglob("*.o"):
        if not whole(compiled):
            compiled.unlink()
    return sum(path.exists() for path in objects(tree))


class Progress:
    """Prints what is compiled and what is left: one line that changes on a terminal, else a line at times.

    Args:
        tree: the folder of the build.
        log: where the build writes what it does.
    """

    def __init__(self, tree: Path, log: Path) -> None:
        self._tree, self._log = tree, log
        self._begun, self._told = time.monotonic(), 0.0
        self._before: int | None = None
        self._line = ""

    def text(self) -> str:
        """For example `12 of 58 files compiled, now adapter_v2.cc; 2 min so far, about 6 min left`."""
        wanted = objects(self._tree)
        if not wanted:
            return "configuring"
        done = sum(path.exists() for path in wanted)
        if self._before is None:
            self._before = done
        elapsed = time.monotonic() - self._begun
        words = f"{done} of {len(wanted)} files compiled"
        if now := COMPILING.findall(self._tail()):
            words += f", now {now[-1].decode(errors='replace')}"
        words += f"; {_duration(elapsed)} so far"
        if self._before < done < len(wanted):
            left = elapsed / (done - self._before) * (len(wanted) - done)
            words += f", about {_duration(left)} left"
        return words

    def tell(self, last: bool = False) -> None:
        """Prints `text` if it is time to."""
        terminal = sys.stdout.isatty()
        now = time.monotonic()
        if not (terminal or last or now - self._told >= EVERY):
            return
        self._told = now
        line = f"Horovod: {self.text()}"
        if terminal:
            print(f"\r{line:<{len(self._line)}}", end="\n" if last else "", flush=True)
        elif line != self._line:
            print(line, flush=True)
        self._line = line

    def _tail(self) -> bytes:
        with self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - 100_000))
            return file.read()


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
