"""Seeds of independent random streams."""

from __future__ import annotations

import numpy as np


def stream(*key: int) -> int:
    """A 63-bit seed from whole numbers: independent streams for different keys."""
    return int(np.random.SeedSequence([int(k) for k in key]).generate_state(1, np.uint64)[0] >> 1)
