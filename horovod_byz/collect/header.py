"""The fixed-size header that every rank sends to every other, directly, before anything large.

Horovod does not notice when a rank brings another length to an allgather: the rows of all later ranks
shift. A header cannot mismatch in size, so the ranks compare what they are about to send and the odd
one is named while nothing has been sent yet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from horovod_byz.collect.digest import SIZE as DIGEST_SIZE
from horovod_byz.collect.errors import HeaderMismatchError, names

Bytes = npt.NDArray[np.uint8]

_MAGIC = b"hvd-byz1"
_WIRE = np.dtype(
    [
        ("magic", "S8"),
        ("step", "<i8"),
        ("length", "<i8"),
        ("rows", "<i8"),
        ("dtype", "S8"),
        ("mode", "S16"),
        ("rule", "V16"),
        ("digest", "V16"),
    ]
)
SIZE = _WIRE.itemsize


@dataclass(frozen=True)
class Header:
    """What a rank is about to send.

    Attributes:
        step: optimizer step; -1 while a collector is bound.
        length: number of coordinates d.
        rows: number of rows on this rank; ranks may differ.
        dtype: name of the rows' dtype, or of what travels in their place.
        mode: the way to collect.
        rule: digest of the rule and of the order of parameters.
        digest: digest of the rank's rows, where the mode relays them; ranks differ.
    """

    step: int
    length: int
    rows: int
    dtype: str
    mode: str
    rule: bytes = bytes(DIGEST_SIZE)
    digest: bytes = bytes(DIGEST_SIZE)

    def pack(self) -> Bytes:
        """The header as `SIZE` bytes."""
        record = np.zeros((), _WIRE)
        record["magic"] = _MAGIC
        for name, value in self._fields().items():
            record[name] = value
        return np.frombuffer(record.tobytes(), np.uint8)

    def _fields(self) -> dict[str, object]:
        found: dict[str, object] = {f.name: getattr(self, f.name) for f in fields(self)}
        found["dtype"], found["mode"] = self.dtype.encode(), self.mode.encode()
        found["rule"], found["digest"] = np.void(self.rule), np.void(self.digest)
        return found

    @property
    def common(self) -> tuple[object, ...]:
        """The fields that all ranks must share."""
        return (self.step, self.length, self.dtype, self.mode, self.rule)


def unpack(data: Bytes) -> Header | None:
    """Reads a header; None if the bytes are not one."""
    record = np.frombuffer(data.tobytes(), _WIRE)[0]
    if bytes(record["magic"]) != _MAGIC:
        return None
    return Header(
        step=int(record["step"]),
        length=int(record["length"]),
        rows=int(record["rows"]),
        dtype=bytes(record["dtype"]).decode("ascii", "replace"),
        mode=bytes(record["mode"]).decode("ascii", "replace"),
        rule=record["rule"].tobytes(),
        digest=record["digest"].tobytes(),
    )


def check(received: Bytes, rows: Sequence[int] | None = None) -> list[Header]:
    """Reads every rank's header and names the ranks that are about to send something else.

    Args:
        received: (size, SIZE) bytes, one header per rank.
        rows: how many rows each rank promised when the collector was bound; None while binding.

    Returns:
        The headers, in rank order.

    Raises:
        HeaderMismatchError: if a rank's header differs from what most ranks announced (the lowest rank's
            among equally frequent ones), or its number of rows from what it promised.
    """
    headers = [unpack(data) for data in received]
    common = Counter(header.common for header in headers if header is not None)
    if not common:
        raise HeaderMismatchError("no rank sent a readable header", range(len(headers)))
    usual = common.most_common(1)[0][0]
    faults = {rank: _fault(header, usual) for rank, header in enumerate(headers)}
    for rank, header in enumerate(headers):
        if header is not None and rows is not None and header.rows != rows[rank]:
            faults[rank] = (faults[rank] + f", rows {header.rows} where {rows[rank]} were bound").lstrip(", ")
    odd = [rank for rank, fault in faults.items() if fault]
    if odd:
        detail = "; ".join(f"rank {rank}: {faults[rank]}" for rank in odd)
        raise HeaderMismatchError(
            f"{names(odd)} would send something else than the other ranks ({detail}): give every rank the "
            "same model, rule and collector, and the same number of steps",
            odd,
        )
    return [header for header in headers if header is not None]


def _fault(header: Header | None, usual: tuple[object, ...]) -> str:
    if header is None:
        return "unreadable header"
    labels = ("step", "length", "dtype", "mode", "rule or parameters")
    told = [
        f"{label} differs" if isinstance(want, bytes) else f"{label} {got} where most have {want}"
        for label, got, want in zip(labels, header.common, usual, strict=True)
        if got != want
    ]
    return ", ".join(told)
