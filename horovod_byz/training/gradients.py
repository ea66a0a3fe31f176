"""Each logical worker's gradient, written straight into its row of one preallocated matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from horovod_byz.optimizer.buffers import Buffers
from horovod_byz.optimizer.rows import WorkerRows
from horovod_byz.training.captured import CapturedPass

__all__ = ["Gradients", "take"]


class Gradients:
    """Computes the gradients of a rank's logical workers at the current parameters.

    A stack of linear layers is computed for all workers at once with batched products; any other model worker
    by worker, which on a CPU is faster than `vmap` for convolutions (their weight gradients become slow
    grouped convolutions); on a GPU each pass is replayed as a CUDA graph. A worker's row has the same bits
    whichever workers are computed with it.

    Args:
        model: the model; a backward pass adds to its gradients in the rows.
        workers: number of logical workers of this rank, k.
        buffers: the model's buffers, with k rows; None for a model without any. Each worker's forward pass
            starts from the same buffers, and what it makes of them becomes that worker's row.
        device: where gradients are computed.

    Attributes:
        memory: the rows, with a view per parameter; the way back from an aggregate to the model.
        rows: the gradients, `(k, d)` float32; overwritten by each `compute`.
        losses: each worker's mean cross-entropy, `(k,)`.
    """

    def __init__(
        self, model: nn.Module, workers: int, buffers: Buffers | None = None, device: str = "cpu"
    ) -> None:
        self.model, self.buffers = model, buffers
        self._linear = _linear_layers(model)
        # A batched product of one matrix is computed by another routine with other last bits: keep at least
        # two.
        self._padded = max(workers, 2) if self._linear is not None else workers
        names, parameters = zip(*model.named_parameters(), strict=True)
        self.memory = WorkerRows(parameters, names, workers=self._padded, device=device)
        self._losses = self.memory.rows.new_zeros(self._padded)
        self.rows = self.memory.rows[:workers]
        self.losses = self._losses[:workers]
        self._captured: CapturedPass | None = None
        on_gpu = self.rows.is_cuda
        self._host = torch.empty_like(self.rows, device="cpu", pin_memory=True) if on_gpu else None
        self._random = any(isinstance(part, nn.Dropout) and part.p > 0 for part in model.modules())

    @property
    def uses_seeds(self) -> bool:
        """Whether the model draws random numbers in its forward pass (dropout)."""
        return self._random

    def compute(self, images: Tensor, labels: Tensor, seeds: Sequence[int] = ()) -> None:
        """Fill `rows`, `losses` and the rows of the buffers.

        Args:
            images: `(k, batch, channels, height, width)`.
            labels: `(k, batch)` int64.
            seeds: one per worker, for dropout; may be empty when `uses_seeds` is false.
        """
        if self._linear is not None:
            if len(labels) < self._padded:
                images, labels = images.repeat(2, 1, 1, 1, 1), labels.repeat(2, 1)
            self._all_at_once(self._linear, images.flatten(2), labels)
        else:
            self._in_turn(images, labels, seeds)

    def _in_turn(self, images: Tensor, labels: Tensor, seeds: Sequence[int]) -> None:
        self.model.train()
        if self.buffers is not None:
            self.buffers.hold()
        compute = self._replayed if images.is_cuda else self._plain
        for worker in range(len(self.rows)):
            if self._random:
                torch.manual_seed(seeds[worker])
            compute(worker, images[worker], labels[worker])
            if self.buffers is not None:
                self.buffers.read(worker)
                self.buffers.put_back()

    def _plain(self, worker: int, images: Tensor, labels: Tensor) -> None:
        self.rows[worker].zero_()
        for parameter, view in zip(self.memory.tensors, self.memory.views[worker], strict=True):
            parameter.grad = view  # backward adds to it in place
        loss = nn.functional.cross_entropy(self.model(images), labels)
        torch.autograd.backward(loss)
        self.losses[worker] = loss.detach()

    def _replayed(self, worker: int, images: Tensor, labels: Tensor) -> None:
        if self._captured is None or not self._captured.fits(images, labels):
            self._captured = CapturedPass(self.model, self.memory.tensors, images, labels)
            if self.buffers is not None:
                self.buffers.put_back()  # the passes before the capture moved them
            if self._random:
                torch.manual_seed(torch.initial_seed())  # the passes before the capture drew from it
        self._captured(images, labels)
        self.rows[worker] = self._captured.row
        self.losses[worker] = self._captured.loss

    def on_host(self) -> Tensor:
        """`rows` in the CPU's memory, `(k, d)`.

        From a GPU a copy in page-locked memory, which the next call overwrites.
        """
        return self.rows if self._host is None else self._host.copy_(self.rows)

    def _all_at_once(self, layers: list[nn.Linear], images: Tensor, labels: Tensor) -> None:
        """Layer by layer for all workers: forward, then row = delta^T x input.

        Every product is batched over workers, never one long product over all their images: that would be
        faster by a tenth, but the library then picks its method, and so the last bits, by the number of
        workers.
        """
        count, batch, _ = images.shape
        with torch.no_grad():
            inputs = [images]
            for layer in layers[:-1]:
                inputs.append(_affine(layer, inputs[-1]).relu_())
            scores = torch.log_softmax(_affine(layers[-1], inputs[-1]), 2)
            target = labels.unsqueeze(2)
            torch.mean(-scores.gather(2, target).squeeze(2), 1, out=self._losses)
            # Gradient of the mean cross-entropy with respect to the logits: (softmax - one hot) / batch.
            delta = (
                scores.exp_().scatter_add_(2, target, scores.new_full((count, batch, 1), -1.0)).div_(batch)
            )
            end = self.memory.d
            for index in reversed(range(len(layers))):
                weight = layers[index].weight
                outputs, width = weight.shape
                begin = end - outputs * (width + 1)
                row = self.memory.rows[:, begin : end - outputs].view(count, outputs, width)
                torch.bmm(delta.transpose(1, 2), inputs[index], out=row)
                torch.sum(delta, 1, out=self.memory.rows[:, end - outputs : end])
                if index:
                    delta = torch.bmm(delta, weight.expand(count, -1, -1)).mul_(inputs[index] > 0)
                end = begin


def _affine(layer: nn.Linear, inputs: Tensor) -> Tensor:
    """`x W^T + b` for `(k, batch, in)` inputs, one product of `(batch, in)` per worker."""
    weight = layer.weight.t().expand(len(inputs), -1, -1)
    return torch.baddbmm(layer.bias, inputs, weight)


def _linear_layers(model: nn.Module) -> list[nn.Linear] | None:
    """The linear layers of `Flatten, Linear, ReLU, Linear, ..., Linear`; None for any other model."""
    if not isinstance(model, nn.Sequential) or len(model) < 2 or not isinstance(model[0], nn.Flatten):
        return None
    linear, between = list(model)[1::2], list(model)[2::2]
    if len(linear) != len(between) + 1 or not all(isinstance(part, nn.ReLU) for part in between):
        return None
    layers = [layer for layer in linear if isinstance(layer, nn.Linear)]
    whole = len(layers) == len(linear) and all(layer.bias is not None for layer in layers)
    return layers if whole else None


def take(images: Tensor, labels: Tensor, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Gather batches: `(k, batch)` indices to images `(k, batch, ...)` and labels `(k, batch)`."""
    chosen = torch.from_numpy(indices).to(labels.device)
    flat = chosen.view(-1)
    return images.index_select(0, flat).view(*chosen.shape, *images.shape[1:]), labels[chosen]
