"""Parts that several of the papers' networks share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["BasicBlock", "BatchNorm2d", "convolution", "size_after", "xavier"]


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation whose running statistics r move to r + momentum (b - r) for a batch's statistics b.

    Torch's own layer computes momentum b + (1 - momentum) r in float64, which has other last bits. This form
    is what the results in results/ were computed with, and it does not decrease where b grows, also after
    rounding: so the median of an odd number of workers' running statistics is what the median of their
    batches' statistics leads to.
    """

    def forward(self, images: Tensor) -> Tensor:
        if not self.training or self.running_mean is None or self.running_var is None or not self.momentum:
            return super().forward(images)
        mean, variance = self.running_mean.new_zeros(2, self.num_features)
        # A momentum of 1 leaves the statistics of this batch alone.
        output = nn.functional.batch_norm(
            images, mean, variance, self.weight, self.bias, training=True, momentum=1.0, eps=self.eps
        )
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance, self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        return output


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            BatchNorm2d(outputs),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), BatchNorm2d(outputs)
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
