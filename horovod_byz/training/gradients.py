"""Each logical worker's gradient, written straight into its row of one preallocated matrix."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from horovod_byz.training.captured import CapturedPass

__all__ = ["FlatModel", "Gradients"]


class FlatModel:
    """A model whose parameters are views of one vector, and likewise its batch normalisation statistics.

    One vector makes the aggregate of a rule the gradient of the model without any copying, and one optimizer
    step a handful of long operations.

    Args:
        model: changed in place: its parameters become views of `theta` and carry no gradient of their own.

    Attributes:
        theta: the parameters, `(d,)` float32, the one parameter that an optimizer gets.
        statistics: running means and variances of all batch normalisation layers, `(s,)`; s may be 0. A
            forward pass in training mode overwrites them with those of its batch: `Gradients` puts the
            running ones back.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.parameters = list(model.parameters())
        self.theta = nn.Parameter(torch.cat([one.detach().reshape(-1) for one in self.parameters]))
        for one, view in zip(self.parameters, self.views(self.theta.detach()), strict=True):
            one.data = view
        self.norms = [one for one in model.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
        names = ("running_mean", "running_var")
        buffers = [getattr(norm, name) for norm in self.norms for name in names]
        self.statistics = torch.cat([*buffers, self.theta.new_zeros(0)])
        self._momentum = float(self.norms[0].momentum or 0.1) if self.norms else 0.0
        begin = 0
        for norm in self.norms:
            norm.momentum = 1.0  # makes what a forward pass leaves the statistics of that one batch
            for name in names:
                setattr(norm, name, self.statistics[begin : begin + norm.num_features])
                begin += norm.num_features

    @property
    def d(self) -> int:
        """Number of parameters."""
        return self.theta.numel()

    @property
    def segments(self) -> tuple[int, ...]:
        """The coordinate after each parameter's last."""
        return tuple(itertools.accumulate(one.numel() for one in self.parameters))

    def update_statistics(self, batch: Tensor) -> None:
        """Move the running statistics towards those of one batch, `(s,)`, by the layers' own momentum."""
        self.statistics.lerp_(batch, self._momentum)

    def views(self, vector: Tensor) -> list[Tensor]:
        """Cut a `(d,)` vector into views with the parameters' shapes, in their order."""
        pieces = vector.split([one.numel() for one in self.parameters])
        return [piece.view(one.shape) for piece, one in zip(pieces, self.parameters, strict=True)]


class Gradients:
    """Computes the gradients of a rank's logical workers at the current parameters.

    A stack of linear layers is computed for all workers at once with batched products; any other model worker
    by worker, which on a CPU is faster than `vmap` for convolutions (their weight gradients become slow
    grouped convolutions); on a GPU each pass is replayed as a CUDA graph. A worker's row has the same bits
    whichever workers are computed with it.

    Args:
        flat: the model.
        workers: number of logical workers of this rank, k.

    Attributes:
        rows: the gradients, `(k, d)` float32; overwritten by each `compute`.
        statistics: batch means and unbiased variances that each worker's forward pass saw, `(k, s)`.
        losses: each worker's mean cross-entropy, `(k,)`.
    """

    def __init__(self, flat: FlatModel, workers: int) -> None:
        self.flat = flat
        theta = flat.theta.detach()
        self._linear = _linear_layers(flat.model)
        # A batched product of one matrix is computed by another routine with other last bits: keep at least
        # two.
        self._padded = max(workers, 2) if self._linear is not None else workers
        self._rows = theta.new_zeros(self._padded, flat.d)
        self._losses = theta.new_zeros(self._padded)
        self.rows = self._rows[:workers]
        self.losses = self._losses[:workers]
        self.statistics = theta.new_zeros(workers, flat.statistics.numel())
        self._views = [flat.views(row) for row in self.rows]
        self._captured: CapturedPass | None = None
        self._host = torch.empty_like(self.rows, device="cpu", pin_memory=True) if theta.is_cuda else None
        self._random = any(isinstance(one, nn.Dropout) and one.p > 0 for one in flat.model.modules())

    @property
    def uses_seeds(self) -> bool:
        """Whether the model draws random numbers in its forward pass (dropout)."""
        return self._random

    def compute(self, images: Tensor, labels: Tensor, seeds: Sequence[int] = ()) -> None:
        """Fill `rows`, `statistics` and `losses`.

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
            self._one_by_one(images, labels, seeds)

    def _one_by_one(self, images: Tensor, labels: Tensor, seeds: Sequence[int]) -> None:
        self.flat.model.train()
        running = self.flat.statistics.clone()
        compute = self._replayed if images.is_cuda else self._plain
        for worker in range(len(self.rows)):
            if self._random:
                torch.manual_seed(seeds[worker])
            compute(worker, images[worker], labels[worker])
            self.statistics[worker] = self.flat.statistics
        self.flat.statistics.copy_(running)

    def _plain(self, worker: int, images: Tensor, labels: Tensor) -> None:
        self.rows[worker].zero_()
        for parameter, view in zip(self.flat.parameters, self._views[worker], strict=True):
            parameter.grad = view  # backward adds to it in place
        loss = nn.functional.cross_entropy(self.flat.model(images), labels)
        torch.autograd.backward(loss)
        self.losses[worker] = loss.detach()

    def _replayed(self, worker: int, images: Tensor, labels: Tensor) -> None:
        if self._captured is None or not self._captured.fits(images, labels):
            self._captured = CapturedPass(self.flat.model, self.flat.parameters, images, labels)
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
            end = self.flat.d
            for index in reversed(range(len(layers))):
                weight = layers[index].weight
                outputs, width = weight.shape
                begin = end - outputs * (width + 1)
                row = self._rows[:, begin : end - outputs].view(count, outputs, width)
                torch.bmm(delta.transpose(1, 2), inputs[index], out=row)
                torch.sum(delta, 1, out=self._rows[:, end - outputs : end])
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
    if len(linear) != len(between) + 1 or not all(isinstance(one, nn.ReLU) for one in between):
        return None
    layers = [one for one in linear if isinstance(one, nn.Linear)]
    return layers if len(layers) == len(linear) and all(one.bias is not None for one in layers) else None
