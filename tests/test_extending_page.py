"""docs/extending.md runs as it stands: its package, its commands, its configuration and its entry points."""

import re
import shlex
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import horovod_byz as hb
from horovod_byz.attacks.registry import ATTACKS
from horovod_byz.cli.main import app
from horovod_byz.rules import RULES
from horovod_byz.training import config as configs
from horovod_byz.training.data import DATASETS
from horovod_byz.training.models import MODELS
from horovod_byz.training.runs import RunFolder
from horovod_byz.training.split import PARTITIONS

pytestmark = pytest.mark.source

_PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
PAGE = _PAGE.read_text() if _PAGE.exists() else ""  # away from a checkout these tests are left out
REGISTRIES = {registry.group: registry for registry in (RULES, ATTACKS, MODELS, DATASETS, PARTITIONS)}
FILES = dict(re.findall(r"`(mypackage/\w+\.py)`:\n\n```python\n(.*?)^```$", PAGE, re.DOTALL | re.M))


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.M)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder of the page's reader."""
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "mypackage" / "__init__.py").touch()
    for name, code in FILES.items():
        (tmp_path / name).write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "mypackage"]:
        del sys.modules[name]


def test_the_page_shows_all_four():
    assert set(FILES) == {f"mypackage/{name}.py" for name in ("rules", "attacks", "models", "data")}


def test_the_commands_run(folder):
    session = next(block for block in blocks("bash") if "--attack mypackage" in block)
    commands = session.replace("\\\n", " ").split("horovod-byz ")[1:]
    assert len(commands) == 2
    for command in commands:
        ended = CliRunner().invoke(app, shlex.split(command))
        assert ended.exit_code == 0, ended.output
    turns = "--partition mypackage.data:ByTurns:length=2 --workers 4 --steps 2 --out runs/turns"
    ended = CliRunner().invoke(app, ["train", "--data", "mypackage.data:stripes", *turns.split()])
    assert ended.exit_code == 0, ended.output
    assert "data by mypackage.data:ByTurns:length=2" in ended.output
    run = RunFolder(folder / "runs" / "own")
    assert (run.summary["steps"], run.config.rule.options) == (40, {"f": 2})


def test_the_configuration_makes_them(folder):
    config = configs.make(tomllib.loads(blocks("toml")[0]))
    assert type(config.make_rule()).__name__ == "NearestToMedoid"
    assert config.make_attack().gain == 5


def test_the_entry_points_lead_to_them(folder):
    groups = tomllib.loads(blocks("toml")[1])["project"]["entry-points"]
    assert set(groups) == set(REGISTRIES)
    for group, names in groups.items():
        for path in names.values():
            assert REGISTRIES[group][path] is not None


def test_the_rule_works_in_python_in_blocks_and_in_whole(folder):
    rows = np.random.default_rng(0).standard_normal((7, 50))
    rows[2:4] = 1e30
    name = "mypackage.rules:NearestToMedoid:f=2"
    assert np.abs(hb.aggregate(rows, name).value - np.delete(rows, [2, 3], axis=0).mean(axis=0)).max() < 1e-9
    with pytest.raises(ValueError, match=r"NearestToMedoid\(f=2\) needs n > 2f = 4 rows, got n = 4"):
        hb.aggregate(rows[:4], name)


def test_the_snippet_with_kernels_runs():
    code = blocks("python")[-1]
    scope = {}
    exec(compile(code, "extending.md", "exec", dont_inherit=True), scope)
    assert scope["out"].tolist() == [2.0, 6.0]
