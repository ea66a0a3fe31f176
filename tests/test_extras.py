"""The core install is enough to import the library and to start the command; what needs more says so."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from horovod_byz.common import extras

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("matplotlib", "pydantic", "scipy", "sklearn", "tomli_w", "PIL", "torchvision", "rich", "typer")
# typer imports pydantic itself in some versions, so the command is tried with it.
COMMAND = ("jinja2", "matplotlib", "scipy", "sklearn", "tomli_w", "PIL", "psutil", "torchvision")
EXTRA = (*COMMAND, "pydantic")
DISTRIBUTION = {"sklearn": "scikit-learn", "tomli_w": "tomli-w", "prometheus_client": "prometheus-client"}


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def distributions(requirements: list[str]) -> set[str]:
    """Names of requirements, those of our own extras resolved."""
    names = set()
    for requirement in requirements:
        if ours := re.fullmatch(r"horovod-byz\[([\w,]+)\]", requirement):
            for extra in ours[1].split(","):
                names |= distributions(project()["optional-dependencies"][extra])
        else:
            names.add(re.match(r"[\w-]+", requirement)[0])
    return names


def test_the_library_imports_nothing_that_is_large(interpreter):
    """0.1.0: two lines in a Horovod script installed pydantic and matplotlib on every host."""
    done = interpreter(
        f"""
        import sys
        import horovod_byz as hb
        hb.DistributedOptimizer, hb.attacks.ALittleIsEnough, hb.theory.recommend
        print([name for name in {HEAVY!r} if name in sys.modules])
        """
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_the_library_works_with_the_core_alone(interpreter):
    done = interpreter(
        """
        import torch
        import horovod_byz as hb
        model = torch.nn.Linear(3, 1)
        optimizer = hb.DistributedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), rule="median")
        model(torch.ones(4, 3)).sum().backward()
        optimizer.step()
        print(hb.theory.z_max(45, 5), optimizer.ledger)
        """,
        without=(*EXTRA, "horovod", "mpi4py"),
    )
    assert done.returncode == 0, done.stderr


def commands(interpreter, lines: list[str], without: tuple[str, ...]) -> list[dict]:
    """Runs `horovod-byz` lines one after another in an interpreter where packages are missing."""
    code = f"""
        import json
        from typer.testing import CliRunner
        from horovod_byz.cli.main import app
        for line in {lines!r}:
            done = CliRunner().invoke(app, line.split())
            print("DONE", json.dumps(dict(code=done.exit_code, out=done.stdout, err=done.stderr)))
        """
    done = interpreter(code, without=without)
    assert done.returncode == 0, done.stderr
    return [json.loads(line[5:]) for line in done.stdout.splitlines() if line.startswith("DONE ")]


def says_what_to_install(result: dict, extra: str) -> bool:
    sentence = rf'horovod-byz: \w+ is not installed: pip install "horovod-byz\[{extra}\]"\n'
    return result["code"] == 1 and re.fullmatch(sentence, result["err"]) is not None


def test_the_command_works_with_the_core_alone(interpreter):
    """What needs more says in one sentence what to install."""
    needs = {"train --data digits": "train", "reproduce": "reproduce", "report . --html page.html": "report"}
    lines = [
        "--help",
        "train --help",
        "reproduce --help",
        "theory recommend --n 15 --f 2",
        "theory detox --n 45 --f 5",
        "bench -n 5 -d 1000 --rounds 1 --alone",
        "doctor",
    ]
    results = commands(interpreter, [*lines, *needs], COMMAND)
    done, refused = results[: len(lines)], results[len(lines) :]
    assert [result["code"] for result in done] == [0] * len(lines), done
    assert 'pip install "horovod-byz[train,report,reproduce]"' in done[-1]["out"].replace("\n", "")
    for result, extra in zip(refused, needs.values(), strict=True):
        assert says_what_to_install(result, extra), result


@pytest.mark.parametrize(
    ("without", "extras_of_lines"),
    [
        (("sklearn",), {"train --data digits --steps 1 --out {out}": "train"}),
        (("matplotlib",), {"reproduce": "reproduce", "bench -n 5 -d 1000 --folder {out}": "report"}),
    ],
    ids=lambda value: ",".join(value),
)
def test_a_missing_extra_is_one_sentence_that_installs_it(interpreter, without, extras_of_lines, tmp_path):
    lines = [line.format(out=tmp_path / "out") for line in extras_of_lines]
    done = commands(interpreter, lines, without)
    for result, extra in zip(done, extras_of_lines.values(), strict=True):
        assert says_what_to_install(result, extra), result


def test_an_import_in_python_says_the_same(interpreter):
    done = interpreter("import horovod_byz.training.config", without=EXTRA)
    assert done.stderr.splitlines()[-1].endswith(
        'pydantic is not installed: pip install "horovod-byz[train]"'
    )


def test_require_names_the_first_that_is_missing(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "sklearn" else object())
    extras.require("train", "pydantic")
    with pytest.raises(extras.MissingExtraError, match=r"sklearn .*\[train\]") as caught:
        extras.require("train")
    assert caught.value.name == "sklearn"
    assert isinstance(caught.value, ModuleNotFoundError)
    assert extras.missing("reproduce") == ["sklearn"]


@pytest.mark.source
def test_the_extras_are_those_of_the_project():
    stated = project()["optional-dependencies"]
    for extra, packages in extras.EXTRAS.items():
        assert {DISTRIBUTION.get(name, name) for name in packages} == distributions(stated[extra]), extra
    assert set(stated) == {*extras.EXTRAS, "all", "horovod", "test", "lint", "docs"}
    assert distributions(["horovod-byz[all]"]) == set().union(
        *(distributions(stated[e]) for e in extras.EXTRAS)
    )


@pytest.mark.source
def test_each_requirement_of_the_code_is_one_of_the_extra_that_it_names():
    stated = 0
    for file in (ROOT / "horovod_byz").rglob("*.py"):
        for extra, rest in re.findall(r'^\s*require\("(\w+)"((?:, "\w+")*)\)', file.read_text(), re.M):
            assert set(re.findall(r'"(\w+)"', rest)) <= set(extras.EXTRAS[extra]), file
            stated += 1
    assert stated >= 5


@pytest.mark.source
def test_the_core_is_small():
    """0.1.0: twelve direct requirements, one of which nothing imported."""
    core = distributions(project()["dependencies"])
    assert core == {"blake3", "numpy", "rich", "torch", "typer"}
    imported = set()
    for file in (ROOT / "horovod_byz").rglob("*.py"):
        imported |= set(re.findall(r"^\s*(?:from|import) (\w+)", file.read_text(), re.M))
    assert core <= imported, "a requirement that nothing imports"
