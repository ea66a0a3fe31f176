"""The examples in docstrings and documents are true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest

import horovod_byz as hb
import horovod_byz.rules
from sharding import run_sharded

MODULES = ["horovod_byz.aggregation.engine"] + [
    f"horovod_byz.rules.{module.name}" for module in pkgutil.iter_modules(horovod_byz.rules.__path__)
]
EXTENDING = Path(__file__).parents[1] / "docs" / "extending.md"


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


def test_docstrings_are_found():
    tried = sum(doctest.testmod(importlib.import_module(name)).attempted for name in MODULES)
    assert tried > 25


@pytest.mark.source
def test_the_rule_of_the_documentation_works():
    blocks = re.findall(r"```python\n(.*?)```", EXTENDING.read_text(), re.DOTALL)
    scope = {"__name__": "documented"}
    exec(compile(blocks[0], "extending.md", "exec", dont_inherit=True), scope)
    rule = scope["NearestToMedoid"](f=2)
    rows = np.random.default_rng(0).normal(size=(9, 5000))
    rows[4] = np.nan
    value, _ = run_sharded(rule, rows, 2)
    np.testing.assert_array_equal(value, rule(rows))
    assert hb.aggregate(rows, rule).verdicts[4].reason == "non-finite"
    rows[[0, 4]] = [[1e19], [1e36]]  # neither swallows the sums of the others
    assert np.abs(rule(rows)).max() < 5
    rows[[0, 4]] = 1e200
    assert np.abs(rule(rows)).max() < 5
    with pytest.raises(ValueError, match="use f <= 1"):
        rule(rows[:4])
