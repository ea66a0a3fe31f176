"""Names on the command line, in TOML and in Python: ours, installed packages', and a user's own."""

import importlib.metadata
import linecache
import re
import sys

import pytest
import torch
import typer
from typer.testing import CliRunner

import horovod_byz as hb
from horovod_byz import attacks, rules
from horovod_byz.cli.main import app
from horovod_byz.common.registry import Registry
from horovod_byz.training import config as configs
from horovod_byz.training import models
from horovod_byz.training.data import DATASETS
from horovod_byz.training.models import MODELS
from horovod_byz.training.runs import RunFolder

OWN = '''
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

import horovod_byz as hb
from horovod_byz.attacks import Attack
from horovod_byz.training.data import Dataset


@dataclass(frozen=True)
class Trimmed(hb.TrimmedMean):
    """A rule with an option."""


@dataclass(frozen=True)
class Shift(Attack):
    """An attack with an option."""

    by: float = 1.0
    threat: ClassVar = "classic"
    knows: ClassVar = "own row"

    def strike(self, tile):
        for row in tile.targets:
            tile.block[row] += self.by


def linear(shape, classes, *, bias=True):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes, bias=bias))


def halves(data_dir, normalise):
    x = torch.randn(60, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    y = (x.mean(dim=(1, 2, 3)) > 0).long()
    return Dataset(x[:40], y[:40], x[40:], y[40:], 2, (1, 4, 4), "", "drawn")


def nothing(*arguments, **options):
    return None


def without():
    return nn.Flatten()


def needs(shape, classes, extra):
    return nn.Flatten()


def narrow(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(3, classes))


def scores(shape, classes):
    return linear(shape, classes + 1)


def double(shape, classes):
    return linear(shape, classes).double()


class Pair(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.inner = linear(shape, classes)

    def forward(self, images):
        return self.inner(images), None


def normal(shape, classes):
    return nn.Sequential(nn.BatchNorm2d(shape[0]), linear(shape, classes))
'''
ODD_SETS = """
from dataclasses import replace

from owncode.things import halves


def without():
    pass


def arrays(data_dir, normalise):
    made = halves(data_dir, normalise)
    return replace(made, train_x=made.train_x.numpy())


def text(data_dir, normalise):
    return replace(halves(data_dir, normalise), classes="2")
"""
ODD_RULES = """
import sys
from dataclasses import dataclass
from typing import ClassVar

from horovod_byz.rules import Condition
from horovod_byz.rules.base import RowRule


@dataclass(frozen=True)
class Leaves(RowRule):
    condition: ClassVar[Condition] = Condition(2, 1)

    def weigh(self, statistics):
        sys.exit(0)


@dataclass(frozen=True)
class Refuses(Leaves):
    def weigh(self, statistics):
        raise ValueError("not these rows")


@dataclass(frozen=True)
class Forgets(Leaves):
    def weigh(self, statistics):
        pass


@dataclass(frozen=True)
class Breaks(Leaves):
    def weigh(self, statistics):
        raise KeyError("x")
"""
TRAIN = [
    *("train", "--data", "owncode.things:halves", "--model", "owncode.things:linear:bias=false"),
    *("--workers", "5", "--byzantine", "1", "--attack", "owncode.things:Shift:by=3"),
    *("--rule", "owncode.things:Trimmed", "--steps", "4", "--batch", "4", "--evaluate-every", "2"),
]
REGISTRIES = {"rule": rules.RULES, "attack": attacks.registry.ATTACKS, "model": MODELS, "data set": DATASETS}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A working folder that holds a package, and no trace of it afterwards."""
    (tmp_path / "owncode").mkdir()
    (tmp_path / "owncode" / "__init__.py").touch()
    (tmp_path / "owncode" / "things.py").write_text(OWN)
    (tmp_path / "owncode" / "broken.py").write_text("import no_such_thing\n")
    (tmp_path / "owncode" / "failing.py").write_text("1 / 0\n")
    (tmp_path / "owncode" / "leaving.py").write_text("import sys\nsys.exit(0)\n")
    (tmp_path / "owncode" / "sets.py").write_text(ODD_SETS)
    (tmp_path / "owncode" / "rules.py").write_text(ODD_RULES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "owncode"]:
        del sys.modules[name]


def invoke(*arguments):
    return CliRunner().invoke(app, [*arguments])


def test_a_users_own_code_trains_from_the_command_line_and_resumes(own):
    made = invoke(*TRAIN, "--out", "run")
    assert made.exit_code == 0, made.output
    folder = RunFolder(own / "run")
    assert str(folder.config.rule) == "owncode.things:Trimmed:f=1"
    assert folder.config.slug == (
        "owncode.things.halves-owncode.things.linear-owncode.things.Trimmed-owncode.things.Shift-seed0"
    )
    code = folder.environment["own"]
    assert {name.partition(":")[2] for name in code} == {"Trimmed", "Shift", "linear", "halves"}
    assert len({origin["sha256"] for origin in code.values()}) == 1
    more = invoke("train", "--out", "run", "--resume", "--steps", "6")
    assert more.exit_code == 0, more.output
    assert folder.summary["steps"] == 6
    assert "changed since" not in more.output
    assert invoke(*TRAIN, "--steps", "6", "--out", "again").exit_code == 0
    assert folder.metrics == RunFolder(own / "again").metrics


def test_resuming_with_changed_code_is_noted(own):
    assert invoke(*TRAIN, "--out", "run").exit_code == 0
    things = own / "owncode" / "things.py"
    things.write_text(OWN.replace("An attack with an option.", "Another attack."))
    linecache.clearcache()
    for name in [name for name in sys.modules if name.partition(".")[0] == "owncode"]:
        del sys.modules[name]
    more = invoke("train", "--out", "run", "--resume", "--steps", "6")
    assert more.exit_code == 0, more.output
    assert "the source of owncode.things:Shift changed since this run began" in " ".join(more.output.split())


def test_it_works_in_toml_in_scripts_of_faults_and_in_pipelines(own, monkeypatch):
    monkeypatch.syspath_prepend(own)
    (own / "run.toml").write_text(
        'data = "owncode.things:halves"\nworkers = 9\nredundancy = 3\n'
        'model = {name = "owncode.things:linear", bias = false}\n'
        'rule = "detox:inner=owncode.things:Trimmed:f=0,outer=median"\n'
        '[[script]]\nstep = 1\nworkers = [0]\nattack = {name = "owncode.things:Shift", by = 2}\n'
    )
    config = configs.make(configs.read(own / "run.toml"))
    assert type(config.make_rule().inner).__name__ == "Trimmed"
    script = config.make_wire().schedule
    assert attacks.Script.from_data(script.to_data()) == script
    assert configs.make(config.to_data()) == config


def test_the_name_works_in_python_too(own, monkeypatch):
    monkeypatch.syspath_prepend(own)
    rule = rules.as_rule("owncode.things:Trimmed:f=1")
    assert rules.name_of(type(rule)) == "owncode.things:Trimmed"
    assert hb.aggregate([[1.0], [2.0], [9.0]], "owncode.things:Trimmed:f=1").value == [2.0]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere.things:Rule", "there is no module 'nowhere' in "),
        ("owncode.absent:Rule", "there is no module 'owncode.absent' in "),
        (
            "owncode.broken:Rule",
            "its module 'owncode.broken' imports 'no_such_thing', which is not installed",
        ),
        ("owncode.failing:Rule", "importing its module 'owncode.failing' failed with ZeroDivisionError"),
        ("owncode.leaving:Rule", "importing its module 'owncode.leaving' failed with SystemExit"),
        ("owncode.things:Trimed", "things.py has no 'Trimed': did you mean 'Trimmed'?"),
        ("owncode.things:Shift", "is the class owncode.things:Shift, not a complete class derived from"),
        ("owncode.things:OWN.x", "has no 'OWN'"),
        (
            "owncode.things:Trimmed:g=1",
            "unknown option of rule 'owncode.things:Trimmed' 'g': choose one of f",
        ),
        ("horovod_byz.rules.base:RowRule", "not a complete class derived from horovod_byz.Rule"),
        ("krum:f", "'krum:f' is not of the form name:option=value"),
        ("krum:f=1,f=2", "'krum:f=1,f=2' gives the option f twice"),
    ],
)
def test_what_cannot_be_used_is_named_with_a_remedy(own, monkeypatch, name, words):
    monkeypatch.syspath_prepend(own)
    with pytest.raises(configs.ConfigError, match=re.escape(words)):
        configs.make({"rule": name})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--data", "owncode.things:nothing"],
            "'owncode.things:nothing' returned NoneType: return a horovod",
        ),
        (["--data", "owncode.things:OWN"], "has no 'OWN'"),
        (["--data", "owncode.sets:without"], "is called with (data_dir, normalise) and does not take them"),
        (["--data", "owncode.sets:arrays"], "train_x and train_y must be torch tensors, got ndarray and"),
        (["--data", "owncode.sets:text"], "classes must be a whole number, got '2'"),
        (["--model", "owncode.things:nothing"], "returned NoneType: return a torch.nn.Module"),
        (["--model", "owncode.things:without"], "is called with (shape, classes) and does not take them"),
        (
            ["--model", "owncode.things:narrow"],
            "of 1 x 4 x 4 float32 failed with RuntimeError (mat1 and mat2",
        ),
        (
            ["--model", "owncode.things:scores"],
            "returned torch.float32 of shape (1, 3): return float32 logits",
        ),
        (["--model", "owncode.things:double"], "failed with RuntimeError"),
        (["--model", "owncode.things:Pair"], "returned tuple: return float32 logits of shape (1, 2)"),
        (
            ["--model", "owncode.things:linear:width=3"],
            "unknown option of model 'owncode.things:linear' 'width'",
        ),
        (
            ["--attack", "owncode.things:Trimmed"],
            "not a frozen dataclass derived from horovod_byz.attacks.Attack",
        ),
        (["--attack", "owncode.things:Shift:to=3"], "unknown option of attack 'owncode.things:Shift' 'to'"),
    ],
)
def test_the_command_ends_with_wrong_usage(own, options, words):
    ended = invoke(*TRAIN, "--out", "run", *options)
    assert ended.exit_code == 2
    assert words in " ".join(ended.output.split())


@pytest.mark.parametrize(
    ("rule", "code", "words"),
    [
        ("Leaves", 1, "rules.py, line 15: sys.exit(0) in the middle of a run"),
        ("Refuses", 2, "rules.py, line 21: not these rows"),
        ("Forgets", 1, "Forgets(): weigh must give one real number for each of 5 rows, got NoneType"),
    ],
)
def test_a_rule_that_fails_in_a_run_is_named_with_its_line(own, rule, code, words):
    """A run that a rule left by sys.exit(0) ended as a good one; errors said nothing of the rule."""
    ended = invoke(*TRAIN, "--out", "run", "--rule", f"owncode.rules:{rule}")
    assert ended.exit_code == code
    assert words in " ".join(ended.output.split())


def test_any_error_of_own_code_is_one_event_of_a_rank(own):
    """With --ranks a KeyError in an own rule stood above 26 lines of the launcher's traceback."""
    ended = invoke(*TRAIN, "--out", "run", "--rule", "owncode.rules:Breaks", "--events")
    assert ended.exit_code == 1
    assert "rules.py, line 33: KeyError: 'x'" in ended.output


@pytest.mark.parametrize("what", REGISTRIES)
def test_an_unknown_name_is_answered_with_all_names(what):
    registry = REGISTRIES[what]
    with pytest.raises(ValueError, match=f"^unknown {what} 'nome': ") as error:
        registry["nome"]
    assert all(name in str(error.value) for name in registry)


def test_an_unknown_rule_is_answered_with_the_pipelines_too():
    for call in (rules.as_rule, lambda name: configs.make({"rule": name})):
        with pytest.raises(ValueError, match="unknown rule 'detux'") as error:
            call("detux")
        assert all(name in str(error.value) for name in rules.names())
        assert "detox-median" in str(error.value)
    with pytest.raises(ValueError, match="Python takes all rules but detox and its pairings"):
        rules.as_rule("detox-median:f=1")


def test_draco_names_the_options_that_make_its_groups():
    with pytest.raises(configs.ConfigError, match=r"use --set redundancy\.r=3"):
        configs.make({"workers": 9, "byzantine": 1, "rule": "draco"})
    configs.make({"workers": 9, "byzantine": 1, "rule": "draco", "redundancy": {"r": 3}})


def test_installed_packages_add_names(own, monkeypatch):
    """By entry points: the name is listed and loaded, ours win, and what cannot be loaded is named."""
    info = own / "owncode-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: owncode\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[horovod_byz.rules]\nown-trimmed = owncode.things:Trimmed\nlost = owncode.things:Lost\n"
        "krum = owncode.things:Trimmed\n"
    )
    monkeypatch.syspath_prepend(own)
    importlib.metadata.MetadataPathFinder().invalidate_caches()
    accepts = rules.RULES._accepts
    registry = Registry("rule", "horovod_byz.rules", accepts, "a rule")
    registry.add("krum", hb.Krum)
    assert registry.names() == ["krum", "own-trimmed", "lost"]
    assert registry["krum"] is hb.Krum
    assert registry["own-trimmed"].__name__ == "Trimmed"
    with pytest.raises(ValueError, match=r"rule 'lost': .*has no 'Lost'"):
        registry["lost"]


def test_a_name_is_given_once():
    with pytest.raises(ValueError, match="a rule named 'krum' is registered already"):
        rules.register(type("Krum", (hb.Median,), {}))
    assert rules.register(hb.Krum) is hb.Krum


def test_help_shows_the_defaults_of_the_configuration():
    config = configs.RunConfig()
    values = {name: getattr(config, name) for name in configs.RunConfig.model_fields}
    values |= {"data": config.data.name, "batch": config.data.batch, "partition": config.data.partition}
    values |= {"lr": config.optimizer.lr, "momentum": config.optimizer.momentum}
    options = typer.main.get_command(app).commands["train"].params
    shown = {option.name: option.show_default for option in options if isinstance(option.show_default, str)}
    assert set(shown) == set(values) & {option.name for option in options} - {"config"}
    assert shown == {name: str(values[name]) for name in shown}
    assert "[default: (digits)]" in invoke("train", "--help").output


def test_the_help_of_bench_says_what_each_option_means():
    text = invoke("bench", "--help").output
    assert "horovod-byz bench" in text
    for line in ("of a value", "of the kernels and of torch", "how often each way is timed", "examples:"):
        assert line in text


def test_an_own_model_is_not_changed_by_the_look_at_it(own, monkeypatch):
    monkeypatch.syspath_prepend(own)
    model = models.build("owncode.things:normal", (1, 4, 4), 2)
    assert model.training
    assert all(module.training for module in model.modules())
    assert model[0].num_batches_tracked == 0
    assert torch.equal(model[0].running_mean, torch.zeros(1))
    with pytest.raises(ValueError, match="has no default for 'extra'"):
        models.build("owncode.things:needs", (1, 4, 4), 2)
