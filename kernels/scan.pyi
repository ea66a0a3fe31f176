import numpy as np
from numpy.typing import NDArray

from horovod_byz.kernels.rows import Rows

def nonfinite(rows: Rows, threads: int = 1) -> NDArray[np.int64]: ...
def checksum(rows: Rows, threads: int = 1) -> NDArray[np.int64]: ...
