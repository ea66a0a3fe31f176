"""Which library connects the ranks of this process; see `host.process`, which other rooms use too."""

from horovod_byz.host.process import initialized, local_rank, ranks, torch_initialized, torch_ranks

__all__ = ["initialized", "local_rank", "ranks", "torch_initialized", "torch_ranks"]
