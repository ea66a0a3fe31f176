"""Equivocation check: every rank repeats to all ranks the messages that it received from each rank.

If rank r's report about rank s differs from s's own report, r or s lies, and without signatures no other rank
can know which. But an honest rank contradicts liars only. While liars are a minority, a rank that contradicts
more ranks than a minority can contain is therefore a liar, and the ranks that it contradicts are cleared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from horovod_byz.collect.errors import EquivocationError, names


def check(said: npt.NDArray[np.uint8], what: str) -> None:
    """Compares the ranks' reports.

    Args:
        said: (size, size, m) bytes; said[r, s] is rank r's report of the bytes from rank s.
        what: plural name of the messages, for the error.

    Raises:
        EquivocationError: if a rank and a report about it differ. It names the liars if
            they can be identified, else both sides of each contradiction.
    """
    own = said[np.arange(len(said)), np.arange(len(said))]
    differs = (said != own[None]).any(axis=2)
    if not differs.any():
        return
    liars, sides = judge(differs)
    faults = []
    if liars:
        faults.append(f"{names(liars)} gave different ranks different {what}, or lied about those of others")
    if sides:
        faults.append(f"{names(sides)} contradict one another about {what}, so that at least one of two lies")
    error = EquivocationError(f"{'; '.join(faults)}: take those ranks out and start again", [*liars, *sides])
    error.doubtful = tuple(sides)
    raise error


def judge(differs: npt.NDArray[np.bool_]) -> tuple[Sequence[int], Sequence[int]]:
    """The identified liars, and the other ranks that contradict one another, some of which lie.

    Args:
        differs: (size, size); differs[r, s] if rank r's report about s differs from s's own.
    """
    conflicts = differs | differs.T
    minority = (len(conflicts) - 1) // 2
    lies = conflicts.sum(axis=1) > minority
    rest = conflicts & ~lies[:, None] & ~lies[None, :]
    return np.flatnonzero(lies).tolist(), np.flatnonzero(rest.any(axis=1)).tolist()
