"""A dedicated root and workers on the other ranks, against the same experiment in one process."""

from functools import cache

from backend import hvd

from horovod_byz.training import config as configs
from horovod_byz.training.data import load_dataset
from horovod_byz.training.ranks import Ranks
from horovod_byz.training.trainer import Trainer

STEPS = 8
SMALL = {
    "steps": STEPS,
    "model": "mlp:width=48",
    "workers": 9,
    "byzantine": 2,
    "attack": "a-little-is-enough",
}
EXPERIMENTS = {
    "median": {"rule": "median"},
    "multi-krum": {"rule": "multi-krum"},
    "detox": {"rule": "detox-median", "redundancy": 3},
    "detox-sign": {
        "rule": "detox-sign",
        "redundancy": 3,
        "compression": "sign",
        "optimizer": {"lr": 0.01},
    },
}
COLLECTORS = ["root:dedicated=true", "root", "sharded", "symmetric"]


@cache
def digits():
    return load_dataset("digits")


def model(name, collect):
    """A digest of the model after some steps on the ranks of this job."""
    trainer = Trainer(configs.make({**SMALL, **EXPERIMENTS[name], "collect": collect}), digits(), Ranks())
    while trainer.step < STEPS:
        trainer.compute()
        trainer.apply(trainer.collect())
    return trainer.digest().hex()


def check_dedicated():
    models = {name: {collect: model(name, collect) for collect in COLLECTORS} for name in EXPERIMENTS}
    # Over MPI the first rank to leave ends MPI under those that still read their last message.
    hvd.barrier()
    return {"rank": hvd.rank(), "models": models}
