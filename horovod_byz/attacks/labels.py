"""Poisoned training data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

from horovod_byz.attacks.base import Attack, Knowledge, Threat, Tile
from horovod_byz.attacks.registry import alias, register

Labels = TypeVar("Labels")


@register
@dataclass(frozen=True)
class LabelFlip(Attack):
    """Byzantine workers train on inverted labels.

        y := classes - 1 - y    (9 - y for ten classes)

    The gradients are then computed honestly: calling the attack on rows leaves them alone, and the loader of
    a Byzantine worker calls `labels`.

    Reference:
        Yin et al. 2018; Li et al. 2021 (BrSGD), section 5.1, "Label Shift" ("Label Inverse" in its
        table).
    """

    threat: ClassVar[Threat] = "classic"
    knows: ClassVar[Knowledge] = "nothing"
    acts_on: ClassVar[Literal["rows", "labels"]] = "labels"

    def labels(self, y: Labels, classes: int) -> Labels:
        """Returns the inverted labels.

        Args:
            y: integer labels in [0, classes): array, tensor or int, any shape. Not written to.
            classes: number of classes.

        Returns:
            classes - 1 - y, of the type and dtype of `y`.

        Raises:
            ValueError: if `classes` is not positive, or a label is out of range.
        """
        if classes < 1:
            raise ValueError(f"LabelFlip: classes must be >= 1, got {classes}")
        low, high = _bounds(y)
        if not 0 <= low <= high < classes:
            raise ValueError(
                f"LabelFlip: labels must lie in [0, {classes}), got {low}..{high}: pass the right classes"
            )
        whole: Any = y
        inverted: Labels = (classes - 1) - whole
        return inverted

    def strike(self, tile: Tile) -> None:
        """Leaves the rows alone: the data were poisoned, and the gradients follow from them."""


def _bounds(y: Any) -> tuple[int, int]:
    if not hasattr(y, "shape"):
        return int(y), int(y)
    return (0, 0) if 0 in y.shape else (int(y.min()), int(y.max()))


alias("label-inverse", "label-flip")
alias("label-shift", "label-flip")
