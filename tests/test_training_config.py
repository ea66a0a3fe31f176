"""Configurations: TOML in and out, defaults shown, mistakes named."""

import math
import tomllib
from pathlib import Path

import pytest

from horovod_byz import Detox, Krum, MultiKrum, Redundancy, SignCompression
from horovod_byz.collect import Root, as_compression
from horovod_byz.training import config as configs
from horovod_byz.training.config import ConfigError, Named, Optimizer, make, parse_literal, write


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"rule": "multi-krum:m=3", "byzantine": 6, "attack": "gaussian:std=10"},
        {"rule": {"name": "brsgd", "beta": 0.25, "threshold": math.inf}},
        {"script": [{"steps": [1, 3], "workers": [0, 2], "attack": {"name": "gaussian", "std": 3.0}}]},
        {"data": {"name": "mnist", "train_limit": 1000}, "optimizer": {"milestones": [5, 10], "decay": 0.1}},
        {"collect": "root:dedicated=true", "model": {"name": "resnet18", "width": 16}},
    ],
)
def test_toml_round_trips(data):
    made = make(data)
    assert make(tomllib.loads(write(made))) == made


def test_f_defaults_to_the_number_of_byzantine_workers_and_is_shown():
    made = make({"rule": "krum", "byzantine": 6, "attack": "omniscient"})
    assert made.rule == Named(name="krum", f=6)
    assert "f = 6" in write(made)
    assert made.make_rule() == Krum(f=6)
    assert make({"rule": "krum:f=2", "byzantine": 6, "attack": "omniscient"}).make_rule() == Krum(f=2)
    assert make({"rule": "median", "byzantine": 6, "attack": "omniscient"}).rule == Named(name="median")
    assert make({"rule": "multi-krum:m=3"}).make_rule() == MultiKrum(f=0, m=3)


def test_names_in_one_word_and_in_a_table_mean_the_same():
    assert make({"rule": "multi-krum:f=2,m=3"}) == make({"rule": {"name": "multi-krum", "f": 2, "m": 3}})
    assert make({"data": "digits"}) == make({"data": {"name": "digits"}})
    assert str(Named(name="krum", f=2)) == "krum:f=2"
    assert make({"collect": "root:dedicated=true"}).make_collector() == Root(dedicated=True)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"sead": 1}, "unknown option 'sead': did you mean 'seed'"),
        ({"optimizer": {"momentun": 0.9}}, "unknown option 'optimizer.momentun': did you mean 'momentum'"),
        ({"rule": "krun"}, "unknown rule 'krun': did you mean 'krum'"),
        ({"rule": "krum:g=2"}, "unknown option of rule 'krum' 'g': .*choose one of f"),
        ({"attack": "omniscent", "byzantine": 1}, "unknown attack 'omniscent'.*did you mean 'omniscient'"),
        ({"model": "resnet"}, "unknown model 'resnet': did you mean 'resnet18'"),
        ({"model": "mlp:depth=2"}, "unknown option of model 'mlp' 'depth'"),
        ({"data": "minst"}, "unknown data set 'minst': did you mean 'mnist'"),
        ({"collect": "ring"}, "unknown way to collect 'ring'"),
        ({"steps": 0}, "steps: .*greater than 0"),
        ({"workers": "many"}, "workers: .*integer"),
        ({"byzantine": 21}, "byzantine = 21 of workers = 20"),
        ({"attack": "omniscient"}, "attacks nobody"),
        (
            {"rule": "krum", "byzantine": 9, "attack": "zero"},
            r"Krum\(f=9\) needs n > 2f \+ 2 = 20 rows, got n = 20",
        ),
        ({"rule": "krum:f"}, "not of the form name:option=value"),
        ({"script": [{"step": 1}]}, "workers, and attack"),
        (
            {"script": [{"step": 1, "workers": [20], "attack": "zero"}]},
            "names worker 20 of 20: use workers 0",
        ),
        ({"script": [{"step": 1, "workers": [0], "attack": 5}]}, "attack must be a name or a table"),
        ({"model": "mlp:width=abc"}, "'mlp' got width = 'abc': use a whole number from 1 to 65536"),
        ({"model": "mlp:width=true"}, "'mlp' got width = True: use a whole number"),
        ({"model": "mlp:width=0"}, "'mlp' got width = 0: use a whole number"),
        ({"model": "mlp:width=1000000"}, "'mlp' got width = 1000000: use a whole number"),
        ({"model": "cnn-xie2018:dropout=1"}, "got dropout = 1: use a number of at least 0 and below 1"),
        ({"model": 5}, 'model: got 5; write model = "NAME", or model = {name = VALUE'),
        ({"data": ["mnist"]}, r"data: got \['mnist'\]; write data = \"NAME\""),
        ({"attack": True}, "attack: got True; write attack ="),
        ({"redundancy": "three"}, "redundancy: got 'three'; write redundancy = {r = VALUE"),
        ({"optimizer": "rmsprop"}, "optimizer.name: Input should be 'sgd' or 'adam', got 'rmsprop'"),
        ({"collect": "root:dedicated=5"}, "collecting 'root' got dedicated = 5: use true or false"),
        ({"steps": {"x": 1}}, "steps: .*valid integer, got {'x': 1}"),
    ],
)
def test_mistakes_are_named(data, message):
    with pytest.raises(ConfigError, match=message):
        make(data)


def test_every_mistake_gets_a_line():
    with pytest.raises(ConfigError) as error:
        make({"steps": -1, "sead": 0})
    assert len(str(error.value).splitlines()) == 2


def test_files_that_are_missing_or_not_toml_are_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot read"):
        configs.read(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("steps = \n")
    with pytest.raises(ConfigError, match=r"bad\.toml is not TOML"):
        configs.read(tmp_path / "bad.toml")


def test_literals():
    values = [parse_literal(text) for text in ("3", "0.5", "true", "[1, 2]", "'x'", " krum ", "inf")]
    assert values == [3, 0.5, True, [1, 2], "x", "krum", math.inf]


def test_learning_rates_decay_at_milestones_and_at_multiples():
    steady = Optimizer(lr=0.5)
    assert steady.lr_at(0) == steady.lr_at(10_000) == 0.5
    stepped = Optimizer(lr=1.0, decay=0.1, milestones=(10, 20))
    assert [stepped.lr_at(step) for step in (9, 10, 20)] == pytest.approx([1.0, 0.1, 0.01])
    slow = Optimizer(lr=1.0, decay=0.5, decay_every=100)
    assert [slow.lr_at(step) for step in (99, 100, 250)] == [1.0, 0.5, 0.25]


def test_compression_by_name():
    assert make({}).make_compression() == as_compression(None)
    assert make({"compression": "sign"}).make_compression() == SignCompression()
    with pytest.raises(ConfigError, match=r"compression: .*'none', 'sign', 'bfloat16' or 'float16'"):
        make({"compression": "fp16"})


@pytest.mark.source
def test_the_papers_configuration_of_detox():
    path = Path(__file__).parent.parent / "launch" / "experiments" / "detox-p45.toml"
    made = make(configs.read(path))
    rule = made.make_rule()
    assert rule == Detox.preset("multi-krum", Redundancy(3), n=45, f=5)
    assert (made.workers, made.byzantine) == (45, 5)
    assert rule.redundancy.batch_size(1440, 45) == made.data.batch
    assert len(rule.redundancy.groups_of(45)) * made.data.batch == 1440
    assert make(tomllib.loads(write(made))) == made
