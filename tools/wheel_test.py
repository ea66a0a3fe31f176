"""Tests what users install: sdist, the wheel built from that sdist, a clean environment, the test suite.

The clean environment borrows the third-party packages of `.venv` (torch alone is too large to install
twice) by naming their folder in a `.pth` file. Python reads no further `.pth` file in a folder named so:
the editable install in `.venv` stays without effect, and `prove` checks that by the files' places.

For every other Python that the package supports and this machine has, a wheel is built from the same sdist
and the rules run on it beside NumPy alone, since torch is too large to install for each.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

import build_wheels

CHECKOUT = Path(__file__).resolve().parent.parent
DESELECT = "not source and not slow"

PROOF = """
import importlib, pathlib, sys
clean, checkout = map(pathlib.Path, sys.argv[1:])
for name in ("horovod_byz", "horovod_byz.kernels.rows"):
    place = pathlib.Path(importlib.import_module(name).__file__).resolve()
    assert place.is_relative_to(clean), f"{name} was imported from {place}, not from the wheel in {clean}"
    print(f"{name}: {place}")
assert checkout not in (pathlib.Path(p).resolve() for p in sys.path), f"{checkout} is on sys.path: {sys.path}"
"""

CORE = """
import sys
import numpy as np
import horovod_byz as hb
rows = np.random.default_rng(0).standard_normal((15, 10_000)).astype(np.float32)
plain = "mean median geometric-median medoid brsgd sign-majority majority-vote".split()
bounded = [f"{name}:f=2" for name in "trimmed-mean mean-around-median krum multi-krum bulyan".split()]
for name in [*plain, *bounded]:
    value = hb.aggregate(rows, name).value
    assert value.shape == (10_000,) and np.isfinite(value).all(), name
rows[0] = np.nan
assert hb.aggregate(rows, "krum:f=1").verdicts[0].reason == "non-finite"
assert np.array_equal(hb.Median()(rows[1:]), np.median(rows[1:], axis=0))
hb.theory.recommend(15, 2)
print("horovod_byz", hb.__version__, "works on Python", sys.version.split()[0])
"""


def run(command: list[str | Path], cwd: Path, env: dict[str, str] | None = None) -> None:
    """Shows and runs one command; raises CalledProcessError when it fails."""
    print("+", *command, flush=True)
    subprocess.run(list(map(str, command)), cwd=cwd, env=env, stdin=subprocess.DEVNULL, check=True)


def run_quietly(command: list[str | Path], cwd: Path) -> None:
    """As `run`, but shows what the command prints only when it fails."""
    print("+", *command, flush=True)
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n", flush=True)
    done.check_returncode()


def build_wheel(dist: Path) -> Path:
    """Builds the sdist from the checkout, then the wheel from nothing but that sdist."""
    run_quietly(
        [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", dist, CHECKOUT], dist.parent
    )
    sdist = next(dist.glob("*.tar.gz"))
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    run_quietly([*pip, "-w", dist, sdist], dist.parent)
    return next(dist.glob("*.whl"))


def clean_environment(place: Path, wheel: Path) -> Path:
    """Installs the wheel in an environment of its own and checks its requirements; returns the Python."""
    venv.create(place)  # without pip: that is borrowed too
    python = place / "bin" / "python"
    purelib = place / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    (purelib / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run([python, "-m", "pip", "install", "-q", "--no-deps", "--ignore-installed", wheel], place)
    run([python, "-m", "pip", "check"], place)
    return python


def environment(python: Path) -> dict[str, str]:
    """The caller's variables, with the clean environment first on PATH and no other way to find modules."""
    dropped = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    path = os.pathsep.join([str(python.parent), str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**kept, "PATH": path, "HOROVOD_BYZ_TESTED": str(python.parent.parent)}


def test(work: Path, jobs: str) -> None:
    """Builds, installs, proves and tests in the folder `work`, which lies outside the checkout."""
    (work / "dist").mkdir()
    python = clean_environment(work / "venv", build_wheel(work / "dist"))
    env = environment(python)
    away = work / "away"
    shutil.copytree(CHECKOUT / "tests", away / "tests", ignore=shutil.ignore_patterns("__pycache__", "build"))
    shutil.copy(CHECKOUT / "pyproject.toml", away)
    (work / "proof.py").write_text(PROOF)
    run([python, work / "proof.py", work / "venv", CHECKOUT], away, env)
    run([python, "-m", "pytest", "-n", jobs, "--dist", "loadgroup", "-m", DESELECT], away, env)


def test_others(work: Path) -> None:
    """Builds, installs and tries the wheel on the other Pythons that are on this machine."""
    sdist = next((work / "dist").glob("*.tar.gz"))
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for version in build_wheels.VERSIONS:
        python = build_wheels.interpreter(version)
        if version == here:
            continue
        if python is None:
            print(f"Python {version} is not on this machine: untested", flush=True)
            continue
        place = work / version
        place.mkdir()
        wheel = build_wheels.build(python, sdist, place)
        own = place / "venv" / "bin" / "python"
        pip = [own, "-m", "pip", "install", "-q", "-c", build_wheels.CONSTRAINTS]
        run([*pip, "numpy", "blake3"], place)
        run([own, "-m", "pip", "install", "-q", "--no-deps", wheel], place)
        (place / "core.py").write_text(CORE)
        run([own, "core.py"], place, {**environment(own), "PYTHONNOUSERSITE": "1"})


def main() -> int:
    """Runs the test in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", default="2", help="pytest processes")
    jobs = parser.parse_args().jobs
    with tempfile.TemporaryDirectory(prefix="horovod_byz-wheel-") as folder:
        try:
            test(Path(folder).resolve(), jobs)
            test_others(Path(folder).resolve())
        except subprocess.CalledProcessError as error:
            print(f"wheel test: failed with exit code {error.returncode}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
