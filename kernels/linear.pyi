from typing import Any

import numpy as np
from numpy.typing import NDArray

from horovod_byz.kernels.rows import Rows

def weighted_sum(
    rows: Rows, weights: NDArray[np.float64], out: NDArray[np.floating[Any]], threads: int = 1
) -> None: ...
