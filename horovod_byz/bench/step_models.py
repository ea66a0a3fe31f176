"""The models of the step benchmark: their size and number of tensors count, what they learn does not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

__all__ = ["MODELS", "Model"]

_BATCH = 32  # rows of a linear model's batch
_TOKENS = 256
_LENGTH, _SEQUENCES = 16, 4


@dataclass(frozen=True)
class Model:
    """A model and its batches.

    Args:
        title: what it is, for the tables.
        build: makes it; equal on all ranks, since it seeds torch.
        batch: makes a batch from a seed.
    """

    title: str
    build: Callable[[], torch.nn.Module]
    batch: Callable[[int], torch.Tensor]


def _linear(d: int, depth: int = 12) -> Model:
    """Linear layers with about d parameters in 2 depth tensors."""
    width = round((math.sqrt(1 + 4 * d / depth) - 1) / 2)

    def build() -> torch.nn.Module:
        torch.manual_seed(0)
        layers = [layer for _ in range(depth) for layer in (torch.nn.Linear(width, width), torch.nn.Tanh())]
        return torch.nn.Sequential(*layers)

    def batch(seed: int) -> torch.Tensor:
        return torch.randn(_BATCH, width, generator=torch.Generator("cpu").manual_seed(seed), device="cpu")

    return Model(f"{depth} linear layers of width {width}", build, batch)


class _Transformer(torch.nn.Module):
    """Encoder layers of 12 tensors each between an embedding and a head: 8 tensors more."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(_TOKENS, width)
        self.position = torch.nn.Parameter(torch.zeros(_LENGTH, width, device="cpu"))
        self.into = torch.nn.Linear(width, width)
        layers = [
            torch.nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True)
            for _ in range(depth)
        ]
        self.layers = torch.nn.Sequential(*layers)
        self.norm = torch.nn.LayerNorm(width)
        self.head = torch.nn.Linear(width, _TOKENS)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of the tokens, `(sequences, length, tokens)`."""
        inside = self.into(self.embedding(tokens) + self.position)
        logits: torch.Tensor = self.head(self.norm(self.layers(inside)))
        return logits


def _transformer(width: int, depth: int) -> Model:
    def build() -> torch.nn.Module:
        torch.manual_seed(0)
        return _Transformer(width, depth)

    def batch(seed: int) -> torch.Tensor:
        generator = torch.Generator("cpu").manual_seed(seed)
        return torch.randint(_TOKENS, (_SEQUENCES, _LENGTH), generator=generator, device="cpu")

    return Model(f"transformer of {depth} layers of width {width}", build, batch)


MODELS: dict[str, Model] = {
    "tiny": _linear(600, depth=2),  # for tests
    "small": _linear(1_000_000),
    "large": _linear(11_200_000),
    "transformer": _transformer(240, 16),
}
