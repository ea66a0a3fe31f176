"""The library's tensors do not depend on `torch.set_default_device` or `torch.set_default_dtype`."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import horovod_byz

PACKAGE = Path(horovod_byz.__file__).parent
# Constructors that take the default device; all but `tensor`, `arange` and `randperm` the default dtype too.
CONSTRUCTORS = {
    *("empty", "zeros", "ones", "full", "tensor", "as_tensor", "arange", "linspace", "eye"),
    *("rand", "randn", "randint", "randperm"),
}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "kernels" not in path.parts)


def unnamed(source: str) -> list[int]:
    """Lines on which torch makes a tensor without a device."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [
        call.lineno
        for call in calls
        if isinstance(call.func, ast.Attribute)
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id == "torch"
        and call.func.attr in CONSTRUCTORS
        and "device" not in {keyword.arg for keyword in call.keywords}
    ]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_constructors_name_a_device(path):
    assert unnamed(path.read_text()) == []


def test_a_constructor_without_a_device_is_seen():
    assert unnamed("import torch\na = torch.zeros(3)\nb = torch.zeros(3, device='cpu')") == [2]
