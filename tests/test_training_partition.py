"""Partitions of the training data among workers: what each gets, by name, in batches and in runs."""

from __future__ import annotations

import numpy as np
import pytest

from horovod_byz.redundancy.batches import Batches
from horovod_byz.training import config as configs
from horovod_byz.training.config import ConfigError
from horovod_byz.training.data import load_dataset
from horovod_byz.training.partition import by_label, dirichlet, gamma
from horovod_byz.training.ranks import Ranks
from horovod_byz.training.report import load
from horovod_byz.training.runs import RunFolder
from horovod_byz.training.sampling import sampled
from horovod_byz.training.split import Dirichlet, Extreme, Gamma, Iid, Skew, Split
from horovod_byz.training.train import Launch, train
from horovod_byz.training.trainer import Trainer
from training import contents

LABELS = np.repeat(np.arange(10), 100)


@pytest.mark.parametrize("alpha", [0.1, 1.0, 1000.0])
def test_each_sample_belongs_to_one_worker(alpha):
    parts = dirichlet(LABELS, 20, alpha, seed=1, least=3)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(1000))
    assert min(map(len, parts)) >= 3


def test_a_small_alpha_gives_few_classes_and_a_large_one_all():
    def classes(alpha):
        return np.mean([len(np.unique(LABELS[part])) for part in dirichlet(LABELS, 10, alpha, seed=1)])

    assert classes(0.1) < 6
    assert classes(1000.0) == 10


def test_the_seed_decides():
    first, again, other = (dirichlet(LABELS, 5, 0.5, seed) for seed in (1, 1, 2))
    assert all(map(np.array_equal, first, again))
    assert not all(map(np.array_equal, first, other))


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"workers": 0}, "workers"),
        ({"least": 101}, "least"),
        ({"alpha": 1e-3, "least": 100}, "1000 draws"),
    ],
)
def test_what_cannot_be_dealt_is_refused(arguments, what):
    with pytest.raises(ValueError, match=what):
        dirichlet(**{"labels": LABELS, "workers": 10, "alpha": 1.0, "seed": 1, **arguments})


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_gamma_deals_a_share_at_random_and_the_rest_in_blocks(share):
    parts = gamma(LABELS, 10, share, seed=1)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(1000))
    assert {len(part) for part in parts} == {100}
    largest = [np.bincount(LABELS[part]).max() for part in parts]
    # A block holds 100 (1 - share) images of one class, and a tenth of the common part is of that class too.
    assert np.mean(largest) == pytest.approx(100 * (1 - share) + 10 * share, abs=8)


def test_gamma_of_0_is_one_block_of_labels_each():
    parts = by_label(LABELS, 10, seed=4)
    assert sorted(LABELS[part][0] for part in parts) == list(range(10))
    assert all(len(np.unique(LABELS[part])) == 1 for part in parts)
    assert any(
        LABELS[part][0] != worker for worker, part in enumerate(parts)
    )  # the seed deals the blocks out
    assert all(map(np.array_equal, parts, gamma(LABELS, 10, 0.0, seed=4)))


@pytest.mark.parametrize(
    "deal", [lambda n: gamma(LABELS[:20], n, 0.3, 0), lambda n: by_label(LABELS[:20], n, 0)]
)
def test_more_workers_than_samples_are_refused_with_the_remedy(deal):
    assert min(map(len, deal(20))) == 1
    with pytest.raises(ValueError, match="20 samples leave some of 21 workers without data: use at most 20"):
        deal(21)


@pytest.mark.parametrize(
    ("word", "made"),
    [
        ("iid", Iid()),
        ("dirichlet:alpha=0.1", Dirichlet(0.1)),
        ("dirichlet:0.1,least=5", Dirichlet(0.1, 5)),
        ("gamma:0.3", Gamma(0.3)),
        ("gamma:share=0.3", Gamma(0.3)),
        ({"name": "gamma", "share": 1}, Gamma(1.0)),
        ("extreme", Extreme()),
    ],
)
def test_partitions_by_name(word, made):
    config = configs.make({"data": {"name": "digits", "partition": word}})
    assert config.data.partition.make() == made
    assert configs.make(config.to_data()) == config


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("gama:0.3", "unknown partition 'gama': did you mean 'gamma'"),
        ("dirichlet", "missing its option alpha: write for example 'dirichlet:alpha=0.1'"),
        ("dirichlet:alpha=-1", "alpha must be a finite number over 0, got -1"),
        ("dirichlet:alpha=true", "alpha must be a number over 0"),
        ("dirichlet:alpha=1,least=0", "least must be >= 1"),
        ("gamma:1.5", "share must be a number from 0 to 1, got 1.5"),
        ("gamma:true", "share must be a number from 0 to 1, got True"),
        ("gamma:nan", "share must be a number from 0 to 1, got nan"),
        ("extreme:share=1", "unknown option of partition 'extreme' 'share'"),
        (5, 'data.partition: got 5; write data.partition = "NAME"'),
    ],
)
def test_mistakes_in_a_partition_are_named(word, message):
    with pytest.raises(ConfigError, match=message):
        configs.make({"data": {"name": "digits", "partition": word}})


class Uneven:
    """A partition of one's own that deals wrongly, as the test asks."""

    def __init__(self, *parts):
        self._parts = parts

    def deal(self, labels, groups, seed):
        return self._parts


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (([], [1, 2], []), "'own' leaves workers 0, 1 of 3 without data: use fewer workers"),
        (([0, 1], [2]), "made 2 parts for 3 groups"),
        (([0, 1], [2], [1000]), "group 2 must hold indices from 0 to 999"),
        (([0, 1], [2], [0.5]), "group 2 must be a vector of sample indices, got float64"),
    ],
)
def test_a_wrong_partition_of_ones_own_is_refused(monkeypatch, parts, message):
    monkeypatch.setattr(Split, "make", lambda self: Uneven(*parts))
    with pytest.raises(ValueError, match=message):
        Split(name="own").parts(LABELS, [2, 0, 1], seed=0)


def test_groups_draw_from_their_own_part_alone():
    parts = by_label(LABELS, 4, seed=0)
    for sampling in ("random", "epochs"):
        batches = Batches(3, 1000, 25, [0, 1, 2, 3, 1], sampling, parts=parts)
        drawn = [batches.indices(step, range(5)) for step in range(10)]
        for worker, group in enumerate(batches.groups):
            mine = np.concatenate([step[worker] for step in drawn])
            assert set(mine.tolist()) <= set(parts[group].tolist())
            if sampling == "epochs":  # 250 samples: one pass
                assert np.array_equal(np.sort(mine), parts[group])
        assert all(np.array_equal(step[1], step[4]) for step in drawn)  # replicas
        assert np.array_equal(batches.indices(7, [2]), drawn[7][[2]])  # nothing is remembered
        assert np.array_equal(batches.indices(0, [2]), drawn[0][[2]])


def test_a_pass_over_a_part_is_what_its_steps_deal_out():
    parts = [np.arange(7), np.arange(7, 20)]
    batches = Batches(3, 20, 3, range(2), "epochs", parts=parts)
    dealt = [batches.indices(step, [1])[0] for step in range(4, 8)]
    assert np.array_equal(batches.epoch(1, 1), np.concatenate(dealt))
    assert batches.steps_per_epoch == 4


def test_epochs_need_a_batch_for_each_group_and_random_batches_one_sample():
    parts = [np.arange(90), np.arange(90, 100)]
    assert Batches(0, 100, 32, range(2), parts=parts).indices(0, [1]).min() >= 90
    with pytest.raises(ValueError, match=r"at least 32 samples .* leaves worker 1 only 10: .*least=32"):
        Batches(0, 100, 32, range(2), "epochs", parts=parts)
    with pytest.raises(ValueError, match="2 parts of the data for 3 groups"):
        Batches(0, 100, 32, range(3), parts=parts)


def test_the_skew_of_labels():
    parts = [np.flatnonzero(LABELS < 5), np.flatnonzero(LABELS >= 5)]
    apart = Skew.of(Split(name="extreme"), LABELS, parts, 10)
    assert apart.skew == pytest.approx(0.5)  # five of ten classes each
    assert apart.labels.tolist() == [[100] * 5 + [0] * 5, [0] * 5 + [100] * 5]
    assert "label skew 0.50" in str(apart)
    assert "500 to 500 images and 5 to 5 of 10 classes" in str(apart)
    assert Skew.of(Split(name="iid"), LABELS, None, 10).to_data() == {"partition": "iid", "label_skew": 0.0}
    skews = [
        Skew.of(Split(name="gamma"), LABELS, gamma(LABELS, 10, share, 0), 10).skew
        for share in (0.0, 0.5, 1.0)
    ]
    assert skews[0] == pytest.approx(0.9)
    assert skews[0] > skews[1] > skews[2]


def small(partition, **settings):
    data = {"name": "digits", "batch": 8, "partition": partition}
    base = {"workers": 6, "steps": 12, "model": "mlp:width=8", "evaluate_every": 6, "data": data}
    return configs.make({**base, **settings})


def test_replicas_of_a_group_share_its_data():
    config = small("extreme", redundancy=3, rule="majority-vote")
    batches, skew = sampled(config, load_dataset("digits"))
    assert len(np.unique(skew.labels, axis=0)) == 2
    for group in config.make_redundancy().groups_of(6):
        drawn = batches.indices(5, group)
        assert all(np.array_equal(drawn[0], other) for other in drawn[1:])


def test_a_run_records_its_skew_and_resumes_to_the_same_numbers(tmp_path):
    config = small("dirichlet:alpha=0.1")
    train(config, Launch(tmp_path / "whole"))
    train(small("dirichlet:alpha=0.1", steps=6), Launch(tmp_path / "parts"))
    train(config, Launch(tmp_path / "parts", resume=True))
    assert contents(tmp_path / "whole") == contents(tmp_path / "parts")
    environment = RunFolder(tmp_path / "whole").environment
    assert environment["partition"] == "dirichlet:alpha=0.1"
    assert 0.3 < environment["label_skew"] < 1
    assert np.sum(environment["labels_of_workers"]) == len(load_dataset("digits").train_y)
    line = load(tmp_path / "whole").plain["configuration"]
    assert line.startswith(f"digits by dirichlet:alpha=0.1 (label skew {environment['label_skew']:.2f}), mlp")


def test_honest_workers_with_unlike_data_are_no_suspects():
    """0.2.0 compared workers with one another whatever their data: unlike data would have accused them."""
    trainer = Trainer(small("extreme", steps=60), load_dataset("digits"), Ranks())
    for _ in range(60):
        trainer.compute()
        trainer.apply(trainer.collect())
    assert trainer.ledger.whole.test == "own past"
    assert trainer.ledger.whole.suspects == ()


def test_runs_without_a_partition_are_the_runs_of_before():
    """A checkpoint of a version without partitions carries this identity, and is continued."""
    config = small("iid")
    data = config.to_data()
    del data["data"]["partition"]
    assert configs.make(data) == config
    assert configs.make(data).identity == config.identity
    assert config.identity != small("extreme").identity
    whole = Batches(config.seed, 1437, 8, [config.make_redundancy().group_of(i, 6) for i in range(6)])
    assert np.array_equal(
        sampled(config, load_dataset("digits"))[0].indices(3, range(6)), whole.indices(3, range(6))
    )


def test_a_partition_that_leaves_a_worker_without_data_ends_the_run_with_the_remedy(tmp_path):
    config = small("extreme", workers=30, data={"name": "digits", "partition": "extreme", "train_limit": 20})
    with pytest.raises(ValueError, match="20 samples leave some of 30 workers without data: use at most 20"):
        train(config, Launch(tmp_path / "run"))


@pytest.mark.parametrize("partition", ["iid", "extreme"])
def test_a_run_with_momentum_tests_nothing(partition):
    """With momentum a row resembles the one before: steps are no independent evidence (4 of 6 honest runs of
    1200 steps named a worker at beta = 0.9)."""
    trainer = Trainer(small(partition, worker_momentum=0.9), load_dataset("digits"), Ranks())
    assert trainer.ledger.whole.test is None
