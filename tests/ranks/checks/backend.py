"""`hvd` for the checks: Horovod, or a few of its functions over torch.distributed where torchrun started us.

So the checks run over both without a change. A single process has neither: it is a job of one rank.
"""

import atexit
import os
import types

import torch.distributed as dist


def _init():
    dist.init_process_group("gloo")
    atexit.register(lambda: dist.is_initialized() and dist.destroy_process_group())


def _over_torch():
    return types.SimpleNamespace(
        init=_init,
        shutdown=dist.destroy_process_group,
        rank=dist.get_rank,
        size=dist.get_world_size,
        barrier=dist.barrier,
        mpi_enabled=lambda: False,
        gloo_enabled=lambda: False,
    )


def _alone():
    return types.SimpleNamespace(rank=lambda: 0, size=lambda: 1, mpi_enabled=lambda: False)


ON_TORCH = "TORCHELASTIC_RUN_ID" in os.environ
if ON_TORCH:
    hvd = _over_torch()
elif "RANK_RESULTS" in os.environ:
    import horovod.torch as hvd
else:
    hvd = _alone()
