import numpy as np
from numpy.typing import NDArray

from horovod_byz.kernels.rows import Rows

def mismatches(rows: Rows, threads: int = 1) -> NDArray[np.bool_]: ...
def majority(rows: Rows, threads: int = 1) -> int: ...
