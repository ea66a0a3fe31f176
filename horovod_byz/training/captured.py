"""One forward and backward pass as a CUDA graph: launching small kernels costs more than running them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from horovod_byz.optimizer.rows import cut

__all__ = ["CapturedPass"]

_WARM_UP = 3  # passes before the capture, in which libraries choose their algorithms and allocate workspaces


class CapturedPass:
    """The gradient of one batch, computed by replaying what the first passes launched.

    Dropout draws from the seed that is set before each replay. The gradients are those of plain passes to
    rounding, since cuDNN may choose another algorithm in a capture; replays repeat bit for bit.

    Args:
        model: on a GPU, in training mode; its parameters and buffers keep their memory.
        parameters: in the order of the row.
        images: one batch, `(batch, channels, height, width)`; later ones have its shape and memory format.
        labels: `(batch,)` int64.

    Attributes:
        row: the gradient of the last batch, `(d,)`.
        loss: its mean cross-entropy, a scalar tensor.
    """

    def __init__(
        self, model: nn.Module, parameters: Sequence[Tensor], images: Tensor, labels: Tensor
    ) -> None:
        self._images, self._labels = images.clone(), labels.clone()
        first = parameters[0]
        self.row = torch.zeros(sum(p.numel() for p in parameters), dtype=first.dtype, device=first.device)
        for parameter, view in zip(parameters, cut(self.row, parameters), strict=True):
            parameter.grad = view  # backward adds to it in place
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                self._pass(model)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self.loss = self._pass(model)

    def _pass(self, model: nn.Module) -> Tensor:
        self.row.zero_()
        loss = nn.functional.cross_entropy(model(self._images), self._labels)
        torch.autograd.backward(loss)
        return loss.detach()

    def fits(self, images: Tensor, labels: Tensor) -> bool:
        """Whether a batch has the shape that was captured."""
        return images.shape == self._images.shape and labels.shape == self._labels.shape

    def __call__(self, images: Tensor, labels: Tensor) -> None:
        """Computes `row` and `loss` of another batch."""
        self._images.copy_(images)
        self._labels.copy_(labels)
        self._graph.replay()
