"""What stands beside a run is computed without a trainer, and is what the trainer's first step would show."""

from __future__ import annotations

import numpy as np
import pytest

import training
from horovod_byz.reproduction import notes
from horovod_byz.training import config as configs
from horovod_byz.training.data import load_dataset
from horovod_byz.training.trainer import Trainer


@pytest.mark.parametrize(
    "options",
    [
        {"model": "mlp:width=16"},
        {"model": "mlp:width=16", "redundancy": 2, "rule": "detox-median", "workers": 6},
        {"model": "cnn-xie2018:width=2,hidden=4", "data": {"name": "digits", "batch": 4, "augment": True}},
    ],
)
def test_the_gamblers_share_of_values_is_that_of_the_first_gradients(options, monkeypatch):
    common = {"workers": 5, "byzantine": 1, "attack": "gambler", "data": {"name": "digits", "batch": 4}}
    config = configs.make({**common, **options})
    trainer = training.trained(**{**common, **options, "steps": 1})
    fresh = Trainer(config, load_dataset("digits"), trainer.ranks)
    fresh.compute()
    monkeypatch.setattr(Trainer, "__init__", None)
    made = notes.of(config, load_dataset("digits"))
    begin, end = made["attacked"]
    rows = fresh.gradients.rows[:, begin:end].numpy()
    rows = rows.repeat(2, axis=0) if "redundancy" in options else rows
    assert made["nonzero"] == pytest.approx(np.count_nonzero(rows) / rows.size, abs=2e-3)
    assert 0 < made["nonzero"] <= 1
    assert made["more_hits_than"] == sorted(made["more_hits_than"], reverse=True)
    assert ("byzantine_votes" in made) == ("redundancy" in options)


def test_most_runs_have_no_notes():
    assert notes.of(configs.make({"workers": 4}), load_dataset("digits")) == {}
