"""Parts of `DistributedOptimizer`, one concern each."""
