"""Parts that several of the papers' networks share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["BasicBlock", "convolution", "size_after", "xavier"]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, images: Tensor) -> Tensor:
        return torch.relu(self.body(images) + self.shortcut(images))


def xavier(model: nn.Sequential) -> nn.Sequential:
    """Draw weights from Xavier's uniform distribution, and set biases to zero."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


def convolution(inputs: int, outputs: int, norm: nn.Module | None = None) -> list[nn.Module]:
    """A 3x3 convolution that keeps the size, a ReLU, and what normalises its output."""
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
    return layers if norm is None else [*layers, norm]


def size_after(features: nn.Sequential, shape: tuple[int, int, int]) -> int:
    """Length of one flattened image after `features`; leaves batch normalisation's statistics alone."""
    training = features.training
    features.eval()
    with torch.no_grad():
        size = features(torch.zeros(1, *shape, device="cpu")).shape[1]
    features.train(training)
    if size == 0:
        raise RuntimeError("the output of a pooling layer has no pixels left")
    return int(size)
