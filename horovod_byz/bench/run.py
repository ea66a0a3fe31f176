"""Times a grid of sizes one after another in one process; shows tables and writes a folder of results."""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from horovod_byz.bench import report, scaling, step, targets, ways
from horovod_byz.bench.clock import MEAN, READ, Way, extra_memory, measure
from horovod_byz.bench.peers import Peers, connect
from horovod_byz.common.extras import require
from horovod_byz.host.environment import describe
from horovod_byz.kernels import dispatch

__all__ = ["cell", "main"]

FULL = ([5, 11, 15, 20, 25, 31, 45, 64, 100, 128, 256], [100_000, 1_000_000, 11_200_000])
QUICK = ([5, 15, 45], [100_000, 1_000_000])
# Expressions and peers take up to 700 times as long as a read: they are left out beyond this many values.
SLOW = 5_000_000


def cell(
    n: int, d: int, dtype: str, threads: int, rounds: int, peers: Peers | None = None, alone: bool = False
) -> dict[str, Any]:
    """Times everything at one size.

    Args:
        n: rows.
        d: values per row.
        dtype: "float32" or "float64".
        threads: for the kernels and torch.
        rounds: number of counted rounds.
        peers: other libraries.
        alone: leave out the expressions of NumPy and torch.

    Returns:
        n, d and "timings": a `Timing` as a dictionary per way, with its kind and, for our own, the bytes by
        which a call raised the process's peak memory.
    """
    rows = ways.matrix(n, d, dtype)
    kinds: dict[str, dict[str, Way]] = {"kernel": ways.kernels(rows, threads)}
    if n * d <= SLOW:
        kinds["expression"] = {} if alone else ways.expressions(rows)
        kinds["peer"] = {} if peers is None or dtype != "float32" else peers.ways(n, d)
    rare = frozenset(name for kind in ("expression", "peer") for name in kinds.get(kind, ()))
    every = {name: way for named in kinds.values() for name, way in named.items()}
    timings = [asdict(timing) for timing in measure(every, rounds, rare)]
    for timing in timings:
        name = timing["name"]
        timing["kind"] = next(kind for kind, named in kinds.items() if name in named)
        if name in (READ, MEAN):
            timing["kind"] = "yardstick"
        if timing["kind"] != "peer":
            timing["extra_bytes"] = extra_memory(every[name])
    return {"n": n, "d": d, "timings": timings}


def main(arguments: Sequence[str] | None = None) -> int:
    """Times the rules on random rows; prints tables, and writes JSON and plots where a folder is given.

    After the word "step" it times training steps instead; see `step.main`.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["step"]:
        return step.main(words[1:])
    parser = _parser()
    given = parser.parse_args(words)
    for name in ("threads", "rounds"):
        if getattr(given, name) < 1:
            parser.error(f"{name} has to be at least 1, got {getattr(given, name)}")
    for name in "nd":
        if min(getattr(given, name)) < 1:
            parser.error(f"{name} has to be at least 1, got {min(getattr(given, name))}")
    if given.folder:
        require("report", "matplotlib", "pydantic", "tomli_w")  # an error now, not after minutes of timing
    ns, ds = FULL if given.full else QUICK if given.quick else (given.n, given.d)
    torch.set_num_threads(given.threads)
    peers = connect(given.peers) if given.peers else None
    machine = {**describe(), "level": dispatch.level(), "threads": given.threads}
    result: dict[str, Any] = {
        "machine": machine,
        "peers": {} if peers is None else peers.versions,
        "dtype": given.dtype,
        "rounds": given.rounds,
        "cells": [],
        "skipped": [],
    }
    for d, n in itertools.product(ds, ns):
        why = _too_much(n, d, given.dtype, given.most)
        if why:
            result["skipped"].append({"n": n, "d": d, "why": why})
        else:
            timed = cell(n, d, given.dtype, given.threads, given.rounds, peers, given.alone)
            result["cells"].append(timed)
            if not given.json:
                report.show(timed, given.dtype, given.threads)
        result["targets"] = targets.verdicts(result["cells"])
        result["exponents"] = scaling.exponents(result["cells"]) if result["cells"] else []
        if given.folder and result["cells"]:  # after each size, so that Ctrl-C loses none that was measured
            write(result, given.folder)
    if peers is not None:
        peers.close()
    if given.json:
        print(json.dumps(result, indent=1))
    else:
        report.conclude(result)
    return 0


def write(result: dict[str, Any], folder: Path) -> None:
    """Writes results.json and the plots, each under a temporary name first."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "results.json.partial"
    partial.write_text(json.dumps(result, indent=1) + "\n")
    partial.replace(folder / "results.json")
    from horovod_byz.bench import plots  # here, since the core install has no matplotlib

    plots.draw(result, folder)


def _too_much(n: int, d: int, dtype: str, most: int | None) -> str:
    """Why a size is left out; empty where it is not."""
    if most is not None and n * d > most:
        return f"more than {most:,} values (--most)"
    size = n * d * ((8 if dtype == "float64" else 4) * (2 if n % 3 == 0 else 1) + 2)  # and in 16 bits
    try:
        free = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        return ""
    short = free is not None and 2 * size > 1024 * int(free[1])
    return "rows and replicas exceed half the free memory" if short else ""


_EXAMPLES = """examples:
  horovod-byz bench                                 the rules at n = 20, d = 1,000,000
  horovod-byz bench -n 45 -d 100000 11200000        other sizes
  horovod-byz bench --quick --folder bench-results  a small grid; results.json and plots in a folder
  horovod-byz bench step                            training steps beside Horovod's own (bench step --help)

How to read the tables: docs/performance.md."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="horovod-byz bench",
        description="Times every rule on random rows, in one process and one after another, against the time "
        "that reading every row once takes (the read floor). Without options: n = 20 rows of 1,000,000.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-n", type=int, nargs="+", default=[20], help="rows (workers); default 20")
    parser.add_argument(
        "-d", type=int, nargs="+", default=[1_000_000], help="coordinates per row; default 1000000"
    )
    parser.add_argument("--full", action="store_true", help=f"n in {FULL[0]}, d in {FULL[1]}")
    parser.add_argument("--quick", action="store_true", help=f"n in {QUICK[0]}, d in {QUICK[1]}")
    parser.add_argument(
        "--dtype", choices=("float32", "float64"), default="float32", help="of a value; default float32"
    )
    parser.add_argument("--most", type=int, help="leave out sizes of more than so many values")
    parser.add_argument("--threads", type=int, default=1, help="of the kernels and of torch; default 1")
    parser.add_argument("--rounds", type=int, default=7, help="how often each way is timed; default 7")
    parser.add_argument("--alone", action="store_true", help="without the expressions of NumPy and torch")
    parser.add_argument("--peers", help="Python of an environment with byzfl or byzpy")
    parser.add_argument("--folder", type=Path, help="where to write results.json and the plots")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser
