"""Loss scaling: what `torch.amp.GradScaler` hands to an optimizer, and what a row is worth without it.

GradScaler lets an optimizer that scales by itself step at every call, with `grad_scale` and `found_inf` as
attributes, and leaves out steps of others. A step of ranks is a collective, which a rank must not leave out
because of an overflow that it alone has seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch


class LossScale:
    """What a GradScaler said of this step, as attributes of an optimizer that are set and deleted by it.

    Args:
        holder: the optimizer wrapper.

    Attributes:
        present: whether a GradScaler drives this step.
    """

    def __init__(self, holder: Any) -> None:
        self._scale = holder.__dict__.get("grad_scale")
        self._found_inf = holder.__dict__.get("found_inf")
        self.present = self._found_inf is not None

    @property
    def overflowed(self) -> bool:
        """Whether the scaler saw NaN or infinities in the gradients as they were before this step."""
        return self._found_inf is not None and bool(float(self._found_inf))

    @property
    def scales(self) -> bool:
        """Whether the gradients still carry the scale."""
        return self._scale is not None

    def remove(self, parameters: Iterable[torch.Tensor]) -> None:
        """Divides the gradients by the scale, unless the scaler did so; only once."""
        if self._scale is None:
            return
        inverse = float(np.float32(1.0 / float(self._scale)))  # the factor that GradScaler multiplies by
        self._scale = None
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(inverse)
