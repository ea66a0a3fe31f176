"""The fixed-size message with which ranks begin every operation over torch.distributed.

Horovod matches the ranks' operations by name. torch.distributed matches them by their order alone: if a rank
left out a part of a step, Gloo would deliver the bytes of one operation into another. A message that is
shorter than expected leaves the rest of the memory as it was, without an error; a longer one ends the
receiver's process ("terminate called", torch 2.13). So before anything of another size, each rank sends every
other the name of its operation and how many elements it is about to send there. Short messages travel in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from horovod_byz.collect.errors import HeaderMismatchError, names
from horovod_byz.collect.protocol import Bytes

# Bytes of a message that travel in the preamble: enough for a header and a key.
ROOM = 512
_MAGIC = b"hvd-byzt"
_NAME = 96
_NOT_OURS = "something that is not of this library"
_RECORD = np.dtype(
    [
        ("magic", "S8"),
        ("operation", f"S{_NAME}"),
        ("count", "<i8"),
        ("payload", f"V{ROOM}"),
    ]
)
SIZE = _RECORD.itemsize


@dataclass(frozen=True)
class Received:
    """The preambles of all ranks for one operation.

    Attributes:
        counts: number of elements, or of the message's bytes, that each rank is about to send to this one.
        payloads: (size, ROOM) bytes.
    """

    counts: list[int]
    payloads: Bytes


def pack(operation: str, counts: Sequence[int], message: Bytes | None = None) -> Bytes:
    """This rank's preamble for each rank, one after the other.

    Args:
        operation: name of the operation; long names are cut.
        counts: number of elements that each rank is about to receive.
        message: at most `ROOM` bytes that travel in the preamble.
    """
    records = np.zeros(len(counts), _RECORD)
    records["magic"], records["operation"], records["count"] = (
        _MAGIC,
        operation.encode("ascii", "replace")[:_NAME],
        counts,
    )
    if message is not None:
        records["payload"] = np.void(message.tobytes().ljust(ROOM, b"\0"))
    return records.view(np.uint8)


def unpack(data: Bytes) -> Received:
    """Reads the preambles of all ranks.

    Raises:
        HeaderMismatchError: if ranks are at other operations than most; it names them, equally on all ranks,
            or nobody where no majority is at the same.
    """
    records = data.view(_RECORD)
    said = [_operation(record) for record in records]
    ours = [name for name in said if name != _NOT_OURS] or said
    ((usual, count),) = Counter(ours).most_common(1)
    odd = [rank for rank, name in enumerate(said) if name != usual]
    if odd:
        majority = 2 * count > len(ours)
        named = odd if majority else range(len(said))
        where = "; ".join(f"rank {rank}: {said[rank]}" for rank in named)
        what = "the ranks came to different operations, and no majority says to which"
        if majority:
            what = f"{names(odd)} came to another operation than the other ranks, which are at {usual}"
        raise HeaderMismatchError(
            f"{what} ({where}): a rank left out a part of a step, or made more or fewer calls than the "
            "others; give all ranks the same calls in the same order",
            odd if majority else [],
        )
    payloads = np.ascontiguousarray(records["payload"]).view(np.uint8).reshape(-1, ROOM)
    return Received(records["count"].tolist(), payloads)


def _operation(record: np.void) -> str:
    if bytes(record["magic"]) != _MAGIC:
        return _NOT_OURS
    return bytes(record["operation"]).decode("ascii", "replace")
