"""The gambler: single values multiplied by a huge number, on the link to one parameter server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from horovod_byz.attacks.base import Attack, Knowledge, Threat, Tile, finite
from horovod_byz.attacks.randomness import stream
from horovod_byz.attacks.registry import register


@register
@dataclass(frozen=True)
class Gambler(Attack):
    """On one of several parameter servers, each received value is hit with a small probability.

        row_i[j] := scale * row_i[j]    with probability p, for j in [s d / S, (s + 1) d / S)

    The d coordinates are split evenly and in order over S servers; server s is attacked. A hit on an exact
    zero is harmless, so the outcome depends on which coordinates that server holds.

    Args:
        scale: the factor; -1e20 in the paper.
        probability: chance p of each value to be hit; 0.05 % in the paper.
        servers: number S of servers; 20 in the paper.
        server: index s of the attacked server, counted from 0. None: drawn by the seed, once per run (the
            paper does not name it).

    Raises:
        ValueError: if `scale` is not finite, `probability` is not in [0, 1], or the server does not exist. On
            a call with offset > 0: d is missing.

    Reference:
        Xie, Koyejo, Gupta 2018, section 5.5.
    """

    scale: float = -1e20
    probability: float = 0.0005
    servers: int = 20
    server: int | None = None

    threat: ClassVar[Threat] = "dimensional"
    knows: ClassVar[Knowledge] = "nothing"
    needs_d: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", finite(self.scale, "Gambler: scale"))
        object.__setattr__(self, "probability", finite(self.probability, "Gambler: probability"))
        if not 0 <= self.probability <= 1:
            raise ValueError(f"Gambler: probability must lie in [0, 1], got {self.probability}")
        if isinstance(self.servers, bool) or not isinstance(self.servers, int) or self.servers < 1:
            raise ValueError(f"Gambler: servers must be an integer >= 1, got {self.servers!r}")
        if self.server is not None and (
            not isinstance(self.server, int) or not 0 <= self.server < self.servers
        ):
            raise ValueError(
                f"Gambler: server must lie in [0, {self.servers}) or be None, got {self.server!r}: "
                f"servers are counted from 0"
            )

    def attacked(self, d: int, seed: int = 0) -> tuple[int, int]:
        """Returns the range [begin, end) of the coordinates that the attacked server holds."""
        server = self.server
        if server is None:  # another purpose than the hits, so that it takes none of their numbers
            server = int(stream(seed, self.name + " server").random() * self.servers)
        return server * d // self.servers, (server + 1) * d // self.servers

    def strike(self, tile: Tile) -> None:
        begin, end = self.attacked(tile.d, tile.seed)
        first, last = max(begin, tile.begin) - tile.begin, min(end, tile.end) - tile.begin
        if first >= last:
            return
        for row in tile.targets:
            # The whole tile is drawn and then cut, so that a hit does not depend on how the work was split.
            hits = first + np.flatnonzero(tile.uniform(row)[first:last] < self.probability)
            tile.block[row, hits] = self.scale * tile.block[row, hits].astype(np.float64)
