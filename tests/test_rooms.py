"""The rooms of the package: who may import whom, no circles, and what the core may not import at all.

Read from the import statements alone, in functions too. Imports under TYPE_CHECKING count for the nevers and
the order of the rooms, as the names in annotations are knowledge too; not for circles between modules, since
such an import never runs.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "horovod_byz"

# A room imports rooms of earlier lines only. ("" is the package itself: its public names.)
ORDER = (
    ("common", "kernels"),
    ("host",),
    ("aggregation",),
    ("redundancy",),
    ("rules",),
    ("theory",),
    ("attacks",),
    ("adversary",),
    ("collect", "ledger"),
    ("faults", "plan"),
    ("optimizer",),
    ("",),
    ("training",),
    ("bench",),
    ("reproduction",),
    ("cli",),
)

# The nevers of the design: (these rooms, never import these modules).
BEYOND_CORE = ("training", "reproduction", "bench", "cli")
CORE = tuple(room for line in ORDER for room in line if room not in BEYOND_CORE)
NEVER = (
    (("aggregation",), ("horovod_byz.collect", "horovod_byz.rules", "horovod", "mpi4py")),
    (("rules",), ("horovod_byz.kernels",)),
    (("common", "host", "kernels", "aggregation", "redundancy"), ("horovod_byz.rules",)),
    (
        CORE,
        ("horovod_byz.training", "horovod_byz.reproduction", "matplotlib", "pydantic", "scipy", "sklearn"),
    ),
)


# Still wrong, each to be removed with its cause: (importing module, imported module).
@dataclass(frozen=True)
class Import:
    """An import statement: `module` imports `target`."""

    module: str
    target: str
    runs: bool = True  # not only for type checkers

    @property
    def pair(self) -> tuple[str, str]:
        return self.module, self.target


def imports(root: Path) -> list[Import]:
    """All imports of a package's .py files, and of its .pyx and .pxd files what a regular expression sees."""
    modules = {name_of(path, root): path for path in sorted(root.rglob("*.py"))}
    graph = [
        Import(module, target, runs)
        for module, path in modules.items()
        for names, runs in statements(ast.parse(path.read_text()))
        for target in targets(names, module, path, modules)
    ]
    for path in sorted([*root.rglob("*.pyx"), *root.rglob("*.pxd"), *root.rglob("*.pyi")]):
        text = path.read_text()
        words = re.findall(r"^\s*(?:from|c?import)\s+([\w.]+)", text, re.MULTILINE)
        graph += [Import(name_of(path, root), word) for word in words]
    return graph


def name_of(path: Path, root: Path) -> str:
    parts = path.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def statements(tree: ast.AST, runs: bool = True) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Each import statement, wherever it stands, and whether it ever runs."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node, runs
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from statements(ast.Module(node.body, []), runs=False)
            yield from statements(ast.Module(node.orelse, []), runs)
        else:
            yield from statements(node, runs)


def targets(
    node: ast.Import | ast.ImportFrom, module: str, path: Path, modules: Iterable[str]
) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = node.module or ""
    if node.level:
        package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
        parents = package[: len(package) - node.level + 1]
        base = ".".join([*parents, *([base] if base else [])])
    for alias in node.names:
        whole = f"{base}.{alias.name}"
        yield whole if whole in modules else base


def room(module: str) -> str:
    return module.partition(".")[2].partition(".")[0]


def lies_in(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def forbidden(graph: Iterable[Import]) -> list[Import]:
    """Imports that break one of the nevers."""
    return [
        each
        for each in graph
        for rooms, never in NEVER
        if room(each.module) in rooms and any(lies_in(each.target, package) for package in never)
    ]


def upward(graph: Iterable[Import]) -> list[Import]:
    """Imports between rooms that do not go to an earlier line of the order."""
    level = {name: i for i, line in enumerate(ORDER) for name in line}
    between = [
        each
        for each in graph
        if lies_in(each.target, "horovod_byz") and room(each.module) != room(each.target)
    ]
    return [each for each in between if level[room(each.module)] <= level[room(each.target)]]


def circles(edges: Iterable[tuple[str, str]]) -> list[list[str]]:
    """The sets of more than one node each of which leads to all others of its set."""
    reach: dict[str, set[str]] = {}
    for a, b in edges:
        reach.setdefault(a, set()).add(b)
    for node in list(reach):
        queue, seen = list(reach[node]), set()
        while queue:
            at = queue.pop()
            if at not in seen:
                seen.add(at)
                queue += reach.get(at, ())
        reach[node] = seen
    sets = {frozenset({b for b in reach[a] if a in reach.get(b, ())} | {a}) for a in reach if a in reach[a]}
    return sorted(sorted(each) for each in sets if len(each) > 1)


@pytest.fixture(scope="module")
def graph() -> list[Import]:
    return imports(ROOT)


def test_every_room_has_its_place(graph):
    assert {room(each.module) for each in graph} <= {name for line in ORDER for name in line}


def test_no_forbidden_import(graph):
    assert forbidden(graph) == []


def test_no_import_runs_back_up(graph):
    assert upward(graph) == []


def test_no_circle_between_modules(graph):
    inside = [each.pair for each in graph if each.runs and lies_in(each.target, "horovod_byz")]
    assert circles((a, b) for a, b in inside if a != b) == []


def test_no_circle_between_rooms(graph):
    inside = [each for each in graph if lies_in(each.target, "horovod_byz")]
    pairs = [(room(each.module), room(each.target)) for each in inside]
    assert circles((a, b) for a, b in pairs if a != b) == []


MADE_UP = {
    "__init__.py": "from horovod_byz.rules import mean",
    "aggregation/__init__.py": "",
    "aggregation/engine.py": """
def run():
    from horovod_byz.rules.mean import Mean
    import horovod.torch
""",
    "aggregation/tiles.py": "from . import engine",
    "rules/__init__.py": "",
    "rules/mean.py": """
from horovod_byz.aggregation import engine
from ..kernels.linear import weighted_sum
""",
    "optimizer/flat.py": """
try:
    import matplotlib.pyplot
except ImportError:
    pass
""",
    "ledger/report.py": """
if TYPE_CHECKING:
    from horovod_byz.training import train
""",
    "collect/a.py": """
if typing.TYPE_CHECKING:
    from horovod_byz.collect import b
else:
    import pydantic
""",
    "collect/b.py": """
class B:
    import horovod_byz.collect.a
""",
    "kernels/linear.pyx": "from horovod_byz.common.checks cimport count",
}


class TestOnAMadeUpTree:
    """The tests above can fail."""

    @pytest.fixture
    def graph(self, tmp_path):
        for name, text in MADE_UP.items():
            path = tmp_path / "horovod_byz" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return imports(tmp_path / "horovod_byz")

    def test_nevers(self, graph):
        assert {each.pair for each in forbidden(graph)} == {
            ("horovod_byz.aggregation.engine", "horovod_byz.rules.mean"),
            ("horovod_byz.aggregation.engine", "horovod.torch"),
            ("horovod_byz.rules.mean", "horovod_byz.kernels.linear"),
            ("horovod_byz.optimizer.flat", "matplotlib.pyplot"),
            ("horovod_byz.ledger.report", "horovod_byz.training"),
            ("horovod_byz.collect.a", "pydantic"),
        }

    def test_order(self, graph):
        assert {each.pair for each in upward(graph)} == {
            ("horovod_byz.aggregation.engine", "horovod_byz.rules.mean"),
            ("horovod_byz.ledger.report", "horovod_byz.training"),
            ("horovod_byz.kernels.linear", "horovod_byz.common.checks"),
        }

    def test_circles(self, graph):
        inside = [each.pair for each in graph if each.runs]
        assert circles(inside) == [["horovod_byz.aggregation.engine", "horovod_byz.rules.mean"]]
        assert circles((room(a), room(b)) for a, b in inside) == [["aggregation", "rules"]]
        assert circles([*inside, ("horovod_byz.collect.a", "horovod_byz.collect.b")])[1] == [
            "horovod_byz.collect.a",
            "horovod_byz.collect.b",
        ]
