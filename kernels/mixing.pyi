from typing import Any

import numpy as np
from numpy.typing import NDArray

from horovod_byz.kernels.rows import Rows

class Mixing:
    """Mixtures of n rows: each a weight times the sum of some of them."""

    def __init__(self, weights: NDArray[np.float64]) -> None: ...
    @staticmethod
    def fits(weights: NDArray[np.float64]) -> bool: ...
    @property
    def n(self) -> int: ...
    @property
    def k(self) -> int: ...
    def mixtures(self, rows: Rows, out: NDArray[np.floating[Any]], threads: int = 1) -> None: ...
    def rule(
        self, rows: Rows, rule: tuple[str, int], out: NDArray[np.floating[Any]], threads: int = 1
    ) -> None: ...
