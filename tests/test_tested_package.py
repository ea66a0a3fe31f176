"""The package under test is the one that is meant: this checkout's, or the installed wheel's."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# tools/wheel_test.py names the environment that it installed the wheel into.
MEANT = Path(os.environ.get("HOROVOD_BYZ_TESTED", Path(__file__).parents[1])).resolve()


@pytest.mark.parametrize("name", ["horovod_byz", "horovod_byz.kernels.rows"])
def test_it_was_imported_from_the_meant_place(name):
    place = Path(importlib.import_module(name).__file__).resolve()
    assert place.is_relative_to(MEANT), f"{name} was imported from {place}, not from {MEANT}"


STATIC = """
from importlib.machinery import PathFinder
spec = PathFinder.find_spec("horovod_byz")
print(spec and spec.origin)
"""

USER = """
import horovod_byz as hb
from horovod_byz.kernels.rows import TILE

most: int = hb.Krum(f=1).max_byzantine(20)
tile: int = TILE
"""


def elsewhere() -> dict[str, str]:
    """The environment without PYTHONPATH: what was installed is all there is."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def test_the_package_is_importable_without_an_import_hook(tmp_path):
    """0.1.0: an editable install put a hook on sys.meta_path, which type checkers and editors do not run."""
    command = [sys.executable, "-c", STATIC]
    done = subprocess.run(command, cwd=tmp_path, env=elsewhere(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip()).parent
    assert (folder / "py.typed").is_file()
    assert (folder / "kernels" / "rows.pyi").is_file()


def test_mypy_finds_it_for_user_code(tmp_path):
    if shutil.which("mypy") is None:
        pytest.skip("mypy is not installed")
    (tmp_path / "user.py").write_text(USER)
    skip = ["--follow-imports=skip", "--cache-dir", os.devnull]  # found is enough: following takes a minute
    command = ["mypy", "--strict", *skip, "--python-executable", sys.executable, "user.py"]
    done = subprocess.run(command, cwd=tmp_path, env=elsewhere(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
