"""Other libraries, timed in a process of their own environment, round by round beside ours.

`make bench-peers` makes that environment. The worker, `peer_worker.py`, runs there, so it imports nothing
from this package; it reads one command per line, `make n d`, `run name` or `quit`, and answers in JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from horovod_byz.bench.clock import Seconds, Way

__all__ = ["Peers"]

WORKER = Path(__file__).with_name("peer_worker.py")


class Peers:
    """A worker process with the libraries that its Python has.

    Args:
        python: interpreter of the peers' environment.

    Attributes:
        versions: library -> version, empty where none could be imported.
    """

    def __init__(self, python: str) -> None:
        self._process = subprocess.Popen(
            [python, str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.versions: dict[str, str] = self._ask("versions")

    def ways(self, n: int, d: int) -> dict[str, Way]:
        """The peers' rules over n random rows of d values, which the worker makes."""
        names: list[str] = self._ask(f"make {n} {d}")
        return {name: self._way(name) for name in names}

    def _way(self, name: str) -> Way:
        return lambda: Seconds(**self._ask(f"run {name}"))

    def close(self) -> None:
        """Ends the worker."""
        self._ask("quit")
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _ask(self, command: str) -> Any:
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        if pipe_in is None or pipe_out is None:
            raise RuntimeError("the peers' worker has no pipes")
        pipe_in.write(command + "\n")
        pipe_in.flush()
        answer = pipe_out.readline()
        if not answer:
            raise RuntimeError(f"the peers' worker ended at {command!r}: its error is in the output above")
        return json.loads(answer)


def connect(python: str | None) -> Peers | None:
    """The peers, or None with a note where their environment is missing."""
    if python is None or not Path(python).exists():
        print("no peers: make bench-peers installs byzfl and byzpy beside this package", file=sys.stderr)
        return None
    return Peers(python)
