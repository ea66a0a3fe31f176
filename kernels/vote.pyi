from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from horovod_byz.kernels.rows import Rows

Partition = Sequence[Sequence[int]]

def mismatches(rows: Rows, threads: int = 1) -> NDArray[np.bool_]: ...
def majority(rows: Rows, threads: int = 1) -> int: ...
def equal(rows: Rows, groups: Partition, lazy: bool = False, threads: int = 1) -> NDArray[np.int64]: ...
def voted(
    rows: Rows,
    groups: Partition,
    inner: tuple[str, int],
    parts: Partition,
    outer: tuple[str, int],
    out: NDArray[Any],
    lazy: bool = False,
    threads: int = 1,
) -> NDArray[np.int64] | None: ...
