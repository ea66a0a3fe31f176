"""Times the aggregation rules against the least that any of them must do: read every row once."""

from horovod_byz.bench.clock import MEAN, READ, Seconds, Spread, Timing, measure
from horovod_byz.bench.run import main

__all__ = ["MEAN", "READ", "Seconds", "Spread", "Timing", "main", "measure"]
