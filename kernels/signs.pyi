import numpy as np
from numpy.typing import NDArray

def majority(packed: NDArray[np.uint8], threads: int = 1) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]: ...
def differences(
    packed: NDArray[np.uint8], point: NDArray[np.uint8], mask: NDArray[np.uint8], threads: int = 1
) -> NDArray[np.int64]: ...
