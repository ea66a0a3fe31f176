"""The shape of `collect/`: one module chooses the transport, and no other room calls a collective.

All import statements count, also those in functions and under `TYPE_CHECKING`.
"""

from __future__ import annotations

import ast
import pathlib

import pytest

import horovod_byz

ROOT = pathlib.Path(horovod_byz.__file__).parent
COLLECT = "horovod_byz.collect"
TRANSPORTS = {f"{COLLECT}.{name}" for name in ("local", "over_horovod", "over_mpi")}
# What a process may ask of Horovod without the other ranks.
NO_COLLECTIVES = {
    *("is_initialized", "init", "rank", "size", "local_rank", "local_size"),
    *("mpi_enabled", "gloo_enabled", "mpi_built", "gloo_built"),
}
# The step benchmark compares ours with Horovod's own optimizer, so it has to make one.
EXCEPTIONS = {"bench/step_variants.py": {"DistributedOptimizer"}}


def imports(source, names):
    """The modules among `names` that a source text imports."""
    wanted = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            wanted.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from package import module` names the module; `from module import thing` its module.
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            wanted.update(parts & names or {node.module})
    return wanted & names


def calls_of_horovod(source):
    """Attributes of `hvd` that a source text uses, and modules of MPI that it imports."""
    tree = ast.parse(source)
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "hvd"
    }
    froms = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return used | {module for module in froms if module and module.split(".")[0] in ("mpi4py", "horovod")}


@pytest.fixture(scope="module")
def graph():
    files = {f"{COLLECT}.{path.stem}": path for path in (ROOT / "collect").glob("*.py")}
    files[COLLECT] = files.pop(f"{COLLECT}.__init__")
    return {name: imports(path.read_text(), set(files)) - {name} for name, path in files.items()}


def test_one_module_chooses_the_transport(graph):
    outside = {name: wanted & TRANSPORTS for name, wanted in graph.items() if name not in TRANSPORTS}
    del outside[f"{COLLECT}.transport"]
    # Joining only asks whether a transport is one of several ranks.
    assert outside.pop(f"{COLLECT}.joining") == {f"{COLLECT}.local"}
    assert not any(outside.values()), outside


def test_nothing_outside_collect_calls_a_collective():
    for path in ROOT.rglob("*.py"):
        if ROOT / "collect" not in path.parents:
            name = path.relative_to(ROOT).as_posix()
            used = calls_of_horovod(path.read_text()) - NO_COLLECTIVES - EXCEPTIONS.get(name, set())
            assert not used, f"{name} uses {used}"


def test_imports_are_seen_wherever_they_stand():
    names = {"a.b", "a.c", "a"}
    hidden = "def f():\n    from a import b\n    import a.c\nif TYPE_CHECKING:\n    from a.b import X\n"
    assert imports(hidden, names) == {"a.b", "a.c"}
    assert calls_of_horovod("import horovod.torch as hvd\nhvd.allreduce(x)\nfrom mpi4py import MPI") == {
        "allreduce",
        "mpi4py",
    }
