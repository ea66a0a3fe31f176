"""Imports run from the command down to the rules, never back up, and in no circle."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import horovod_byz

PACKAGE = Path(horovod_byz.__file__).parent
ROOMS = ("attacks", "cli", "common", "reproduction", "rules", "theory")
# Who may import a room, beside the room itself.
ABOVE = {"cli": set(), "reproduction": {"cli"}, "theory": {"", "attacks", "cli", "reproduction"}}


def module_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(("horovod_byz", *(parts[:-1] if parts[-1] == "__init__" else parts)))


MODULES = {module_of(path): path for path in PACKAGE.rglob("*.py")}


def statements(tree, whole):
    """The import statements of a module; those inside functions only where the whole is asked for."""
    for node in ast.walk(tree) if whole else _outside_functions(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in inner)


def _outside_functions(node):
    for child in ast.iter_child_nodes(node):
        typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not typing_only:
            yield child
            yield from _outside_functions(child)


def imports(module, whole=False):
    tree = ast.parse(MODULES[module].read_text())
    return {name for name in statements(tree, whole) if name in MODULES} - {module}


def room(module):
    return [*module.split("."), ""][1]


@pytest.mark.parametrize("below", ABOVE)
def test_nothing_below_imports_a_room(below):
    allowed = {below, *ABOVE[below]}
    users = {name for name in MODULES if any(room(used) == below for used in imports(name, whole=True))}
    assert {room(name) for name in users} <= allowed, sorted(users)


def test_what_all_use_imports_nothing_of_ours():
    used = {target for name in MODULES if room(name) == "common" for target in imports(name, whole=True)}
    assert {room(target) for target in used} <= {"common"}


@pytest.mark.parametrize("place", ROOMS)
def test_no_module_of_a_room_is_in_a_circle(place):
    for start in (name for name in MODULES if room(name) == place):
        seen, ahead = set(), list(imports(start))
        while ahead:
            name = ahead.pop()
            assert name != start, f"{start} imports itself through {seen}"
            if name not in seen:
                seen.add(name)
                ahead += imports(name)


def test_the_check_sees_a_circle_and_an_import_inside_a_function():
    tree = ast.parse("from horovod_byz.cli import main\ndef f():\n    import horovod_byz.reproduction.grid\n")
    assert set(statements(tree, False)) == {"horovod_byz.cli.main"}
    assert set(statements(tree, True)) == {"horovod_byz.cli.main", "horovod_byz.reproduction.grid"}
