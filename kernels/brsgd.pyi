import numpy as np
from numpy.typing import NDArray

from horovod_byz.kernels.rows import Rows

def statistics(rows: Rows, threads: int = 1) -> tuple[NDArray[np.int64], NDArray[np.float64]]: ...
