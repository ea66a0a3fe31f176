from typing import Any

import numpy as np
from numpy.typing import NDArray

from horovod_byz.kernels.rows import Rows

def squared(rows: Rows, threads: int = 1) -> NDArray[np.float64]: ...
def gram(rows: Rows, threads: int = 1) -> NDArray[np.float64]: ...
def to_point(rows: Rows, point: NDArray[np.floating[Any]], threads: int = 1) -> NDArray[np.float64]: ...
def to_point_and_norms(
    rows: Rows, point: NDArray[np.floating[Any]], threads: int = 1
) -> NDArray[np.float64]: ...
def combined(
    rows: Rows,
    rule: tuple[str, int] | NDArray[np.float64],
    out: NDArray[np.floating[Any]],
    threads: int = 1,
) -> NDArray[np.float64]: ...
