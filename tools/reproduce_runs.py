"""Trains committed runs anew with today's code, and compares their metrics with the committed ones.

    python tools/reproduce_runs.py [GRID/RUN ...] [--data-dir DIR] [--steps N]
    python tools/reproduce_runs.py --checkout DIR [GRID/RUN ...]

Numbers in JSON round-trip, so equal values are equal bits. The last bits depend on the kind of processor
too: without names, the tool takes those of its RUNS that were made on a processor like this one. Of others,
compare the code that made them with today's on this machine: `--checkout` names a checkout of that commit
with its kernels compiled. Exits with 1 if a value differs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from horovod_byz.host import environment
from horovod_byz.training.runs import RunFolder

ROOT = Path(__file__).resolve().parent.parent
RUNS = (
    "detox-pairings-clean/Mean-no-attack_1",
    "detox-pairings/Median_ALIE-z=1.0_10_0",
    "detox-pairings/D-Median_inner-product_10_0",
    "xie2018-mnist/batch-8_Mean_5",
    "xie2018-mnist/bit-flip_MeanAroundMedian_8",
    "detox-pairings/D-Multi-Krum_ALIE-z=0.5_5_0",
    "brsgd-small/gaussian_BrSGD_2_0",
    "detox-vgg13-small/ALIE_5_D-Median_0",
    "detox-resnet18-small/ALIE_5_D-Multi-Krum_0",
    "xie2018-cifar-small/gambler_MeanAroundMedian_0",
    "empires-small/10_Median_100_0",
)
MACHINE = ("cpu", "torch_simd", "python", "packages")


def trained(code: Path, run: RunFolder, out: Path, options: Sequence[str]) -> list[dict[str, Any]]:
    """The evaluations of a run's configuration, trained into `out` by the code of a checkout.

    Raises:
        CalledProcessError: if that fails; what it said is on the screen.
    """
    threads = str(run.environment["torch_threads"])
    command = [sys.executable, "-m", "horovod_byz.cli", "train", str(run.path.resolve() / "config.toml")]
    subprocess.run(
        [*command, "--out", str(out), "--overwrite", *options],
        env={**os.environ, "PYTHONPATH": str(code.resolve()), "OMP_NUM_THREADS": threads},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return RunFolder(out).metrics


def differences(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> Iterator[str]:
    """Each value that differs between two lists of evaluations, in words; None stands for NaN."""
    for old, new in zip_longest(before, now, fillvalue={}):
        step = old.get("step", new.get("step"))
        for name in dict.fromkeys([*old, *new]):
            if old.get(name, "absent") != new.get(name, "absent"):
                yield f"step {step}, {name}: {old.get(name)!r} before, {new.get(name)!r} now"


def machines(before: dict[str, Any], here: dict[str, Any]) -> Iterator[str]:
    """What differs between the machine of a run and this one, in words."""
    for name in MACHINE:
        if before.get(name) != here.get(name):
            yield f"{name}: {before.get(name)} before, {here.get(name)} now"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="GRID/RUN", help="folders in results/")
    parser.add_argument("--data-dir", type=Path, help="where to look for the data first")
    parser.add_argument("--steps", type=int, help="only the first steps")
    parser.add_argument("--checkout", type=Path, help="compare with this code, not with what is committed")
    options = parser.parse_args()
    here = environment.describe()
    folders = {name: RunFolder(ROOT / "results" / name) for name in options.runs or RUNS}
    if not options.runs and options.checkout is None:
        folders = {name: run for name, run in folders.items() if run.environment["cpu"] == here["cpu"]}
    extra = [] if options.data_dir is None else ["--data-dir", str(options.data_dir.resolve())]
    extra += [] if options.steps is None else ["--steps", str(options.steps)]
    differ = 0
    for name, run in folders.items():
        with tempfile.TemporaryDirectory() as folder:
            now = trained(ROOT, run, Path(folder) / "now", extra)
            before, origin = run.metrics[: len(now)], run.environment
            if options.checkout is not None:
                before, origin = trained(options.checkout, run, Path(folder) / "before", extra), here
        lines = list(differences(before, now))
        print(f"{name}: {len(lines)} of {sum(map(len, now))} values differ", flush=True)
        for line in [*lines[:3], *machines(origin, here)] if lines else ():
            print(f"  {line}", flush=True)
        differ += bool(lines)
    print(f"{len(folders) - differ} of {len(folders)} runs are reproduced bit for bit")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
