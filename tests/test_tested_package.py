"""The package under test is the one that is meant: this checkout's, or the installed wheel's."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest

# tools/wheel_test.py names the environment that it installed the wheel into.
MEANT = Path(os.environ.get("HOROVOD_BYZ_TESTED", Path(__file__).parents[1])).resolve()


@pytest.mark.parametrize("name", ["horovod_byz", "horovod_byz.kernels.rows"])
def test_it_was_imported_from_the_meant_place(name):
    place = Path(importlib.import_module(name).__file__).resolve()
    assert place.is_relative_to(MEANT), f"{name} was imported from {place}, not from {MEANT}"
