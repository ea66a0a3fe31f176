"""The step benchmark on these ranks, with a tiny model."""

from backend import ON_TORCH

from horovod_byz.bench import step_rank


def check_step_benchmark():
    backend = "torch" if ON_TORCH else "gloo"
    job = {
        "backend": backend,
        "ranks": 2,
        "model": "tiny",
        "network": "loopback",
        "rounds": 2,
        "every": False,
    }
    return step_rank.run(job)
