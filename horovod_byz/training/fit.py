"""Whether a model of a user's own fits the data, looked at before the first step."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

__all__ = ["check_logits", "check_signature"]

Shape = tuple[int, int, int]


def check_signature(
    name: str, build: Callable[..., nn.Module], shape: Shape, classes: int, options: Mapping[str, Any]
) -> None:
    """Checks that a function takes what models are built from.

    Raises:
        ValueError: if it does not.
    """
    try:
        inspect.signature(build).bind(shape, classes, **options)
    except TypeError as error:
        given = "".join(f", {option}={value!r}" for option, value in options.items())
        raise ValueError(
            f"model {name!r} is called with (shape, classes{given}) and does not take them ({error}): define "
            "it as a function (shape, classes, *, options) -> torch.nn.Module"
        ) from error


def check_logits(name: str, model: nn.Module, shape: Shape, classes: int) -> None:
    """Computes the logits of a blank image, so that a model which does not fit the data is named now.

    Raises:
        ValueError: if it fails on the image, or gives no float32 logits, one for each class.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()  # BatchNorm must not learn from the blank image
    what = f"model {name!r} on a batch of one image of {' x '.join(map(str, shape))} float32"
    try:
        with torch.no_grad():
            logits = model(torch.zeros(1, *shape, dtype=torch.float32, device="cpu"))
    except Exception as error:
        raise ValueError(
            f"{what} failed with {type(error).__name__} ({error}): make it fit the data"
        ) from error
    finally:
        for module, training in modes:
            module.training = training
    wanted = f"return float32 logits of shape (1, {classes})"
    if not isinstance(logits, torch.Tensor):
        raise ValueError(f"{what} returned {type(logits).__name__}: {wanted}")
    if logits.dtype != torch.float32 or logits.shape != (1, classes):
        raise ValueError(f"{what} returned {logits.dtype} of shape {tuple(logits.shape)}: {wanted}")
