"""A sharpness-aware optimizer as users write it, for tests of optimizers with steps of their own."""

from __future__ import annotations

import torch


class SharpnessAware(torch.optim.SGD):
    """A step in two halves: up the gradient, and back down by the gradient there."""

    def __init__(self, parameters, lr=0.1):
        super().__init__(parameters, lr=lr)

    @torch.no_grad()
    def first_step(self):
        for p in self.param_groups[0]["params"]:
            self.state[p]["old"] = p.clone()
            p.add_(0.05 * p.grad)
            p.grad = None

    @torch.no_grad()
    def second_step(self):
        for p in self.param_groups[0]["params"]:
            if "old" in self.state[p]:
                p.data = self.state[p]["old"]
        super().step()
        for p in self.param_groups[0]["params"]:
            p.grad = None

    def step(self, closure):
        self.first_step()
        loss = closure()
        self.second_step()
        return loss
