"""Counts the instructions of the main kernels under callgrind: the same number on every run and every load.

    python tools/count_instructions.py            # writes results/bench/instructions.json
    python tools/count_instructions.py --compare  # against it; fails where a kernel grew by 5 %

valgrind knows no AVX-512, so the AVX2 kernels are counted. Needs valgrind (apt install valgrind).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "results" / "bench" / "instructions.json"
D = 3 * 4096 + 5
ROWS = (15, 45)
GREW = 1.05
# C++ function of core/ -> what it is called in the file.
KERNELS = {
    "by_column<float, &hb::Blocks<float>::median>": "median",
    "dropping<float, &hb::Blocks<float>::trimmed_mean>": "trimmed mean",
    "dropping<float, &hb::Blocks<float>::mean_around_median>": "mean around median",
    "by_column<float, &hb::Blocks<float>::sign_majority>": "sign majority",
    "weighted_sum<float>": "mean",
    "squared<float>": "squared distances",
    "gram<float>": "inner products",
    "to_point<float>": "distances to a point",
    "brsgd<float>": "BrSGD statistics",
    "voted<float>": "DETOX, median",
}
PROGRAM = f"""
import sys
import numpy as np
from horovod_byz.kernels import brsgd, coordinate, dispatch, distances, linear, vote
from horovod_byz.kernels.rows import Rows
n = int(sys.argv[1])
dispatch.use("avx2")
data = np.random.default_rng(0).standard_normal((n, {D})).astype(np.float32)
rows, out, f = Rows(data), np.empty({D}, np.float32), (n - 1) // 4
coordinate.median(rows, out)
coordinate.trimmed_mean(rows, out, f)
coordinate.mean_around_median(rows, out, f)
coordinate.sign_majority(rows, out)
linear.weighted_sum(rows, np.full(n, 1 / n), out)
distances.squared(rows)
distances.gram(rows)
distances.to_point(rows, out.copy())
brsgd.statistics(rows)
copies = Rows(data[np.arange(n) // 3 * 3])
groups = [list(range(i, i + 3)) for i in range(0, n, 3)]
vote.voted(copies, groups, ("median", 0), [list(range(n // 3))], ("mean", 0), out, lazy=True)
"""


def counts(n: int) -> dict[str, float]:
    """Instructions per value read, kernel by kernel, over n rows."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind"
        # Matched from the start: the names of what a kernel calls hold its own as a template argument.
        wanted = [f"--toggle-collect=int hb::{name}(*" for name in KERNELS]
        command = [
            "valgrind",
            "--tool=callgrind",
            "--collect-atstart=no",
            f"--callgrind-out-file={out}",
            *wanted,
        ]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
        subprocess.run(
            [*command, sys.executable, "-c", PROGRAM, str(n)],
            check=True,
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        listing = subprocess.run(
            ["callgrind_annotate", "--inclusive=yes", "--threshold=100", str(out)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    measured = {}
    for name, called in KERNELS.items():
        line = re.search(rf"^\s*([\d,]+) .*:int hb::{re.escape(name)}\(", listing, flags=re.M)
        if line is None:
            raise SystemExit(f"callgrind saw no hb::{name}: was it renamed? See KERNELS in {__file__}")
        measured[f"{called}, n = {n}"] = round(int(line[1].replace(",", "")) / (n * D), 4)
    return measured


def main() -> int:
    """Counts, then writes or compares."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--compare", action="store_true", help="compare with the file instead of writing it")
    given = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("valgrind is not installed: apt install valgrind", file=sys.stderr)
        return 2
    now = {name: count for n in ROWS for name, count in counts(n).items()}
    if given.compare:
        before = json.loads(KEPT.read_text())["instructions_per_value"]
        grown = 0
        for name, count in now.items():
            ratio = count / before[name] if name in before else float("nan")
            grown += ratio > GREW
            print(f"{name:32} {count:8.3f}  x {ratio:.3f}{'  more than before' if ratio > GREW else ''}")
        return 1 if grown else 0
    version = subprocess.run(
        ["valgrind", "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()
    compiler = subprocess.run(
        ["g++", "-dumpfullversion"], capture_output=True, text=True, check=True
    ).stdout.strip()
    record = {
        "level": "avx2",
        "dtype": "float32",
        "d": D,
        "valgrind": version,
        "g++": compiler,
        "instructions_per_value": now,
    }
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    partial = KEPT.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=1) + "\n")
    partial.replace(KEPT)
    print(KEPT.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
