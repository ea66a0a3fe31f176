"""The fixed-size header that every rank sends to every other, directly, before anything large.

Horovod does not notice if a rank passes another length to an allgather: the rows of all later ranks shift.
All headers have one size, so the ranks can compare them, and name a rank that differs before any row is sent.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from horovod_byz.collect.digest import SIZE as DIGEST_SIZE
from horovod_byz.collect.digest import of_text
from horovod_byz.collect.errors import HeaderMismatchError, JoinedRanksError, StateMismatchError, names

Bytes = npt.NDArray[np.uint8]

_MAGIC = b"hvd-byz1"
_RECORD = np.dtype(
    [
        ("magic", "S8"),
        ("step", "<i8"),
        ("length", "<i8"),
        ("rows", "<i8"),
        ("start", "<i8"),
        ("dtype", "S8"),
        ("mode", "S16"),
        ("rule", "V16"),
        ("compute", "<f4"),
        ("apply", "<f4"),
        ("wait", "<f4"),
        ("layout", "V16"),
        ("state", "V16"),
        ("digest", "V16"),
    ]
)
SIZE = _RECORD.itemsize
NONE = bytes(DIGEST_SIZE)
# The mode of a rank that called hvd.join() and takes no more steps.
JOINED = "joined"
BINDING = -1  # in place of a step's number
# What the fields of `Header.common` are called.
_LABELS = (
    *("step", "length", "dtype", "mode", "rule, parameters, policy or the ledger's history"),
    "expected number of rows per rank",
)
_REMEDY = (
    "give every rank the same model, rule, collector and policy (and ledger, where the policy acts on its "
    "test), numbers of workers, and number of steps"
)


@dataclass(frozen=True)
class Header:
    """A rank's description of the rows that it is about to send.

    Attributes:
        step: optimizer step; `BINDING` while a collector is bound.
        length: number of coordinates d.
        rows: number of rows on this rank; ranks may differ.
        dtype: name of the format of the rows; see `Compression.label`.
        mode: the collection mode.
        rule: digest of the rule, the order of parameters, and the policy.
        digest: digest of the rank's rows, where the mode relays them; ranks differ.
        layout: digest of the number of rows that this rank expects of each rank.
        state: digest of the rank's parameters, or zeros at a step that does not compare them.
        start: while a collector is bound, the first step that this rank proposes; ranks may differ.
        compute: seconds from the end of this rank's last step to this header, without `apply`; ranks differ.
        apply: seconds that its optimizer took to apply the last aggregate; likewise.
        wait: seconds that it waited for the others' last headers; likewise.
    """

    step: int
    length: int
    rows: int
    dtype: str
    mode: str
    rule: bytes = NONE
    digest: bytes = NONE
    layout: bytes = NONE
    state: bytes = NONE
    start: int = 0
    compute: float = 0.0
    apply: float = 0.0
    wait: float = 0.0

    def pack(self) -> Bytes:
        """The header as `SIZE` bytes."""
        record = np.zeros((), _RECORD)
        record["magic"] = _MAGIC
        for name, value in self._fields().items():
            record[name] = value
        return np.frombuffer(record.tobytes(), np.uint8)

    def _fields(self) -> dict[str, object]:
        values: dict[str, object] = {f.name: getattr(self, f.name) for f in fields(self)}
        values["dtype"], values["mode"] = self.dtype.encode(), self.mode.encode()
        values.update({name: np.void(getattr(self, name)) for name in ("rule", "digest", "layout", "state")})
        return values

    @property
    def common(self) -> tuple[object, ...]:
        """The fields that all ranks must share."""
        return (self.step, self.length, self.dtype, self.mode, self.rule, self.layout)


def unpack(data: Bytes) -> Header | None:
    """Reads a header; None if the bytes are not one."""
    record = np.frombuffer(data.tobytes(), _RECORD)[0]
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
        layout=record["layout"].tobytes(),
        state=record["state"].tobytes(),
        start=int(record["start"]),
        **{name: _seconds(float(record[name])) for name in ("compute", "apply", "wait")},
    )


def _seconds(said: float) -> float:
    """A duration that a peer gives; 0 for what is none."""
    return said if 0.0 < said < math.inf else 0.0


def any_binds(received: Bytes) -> bool:
    """Whether a rank is binding."""
    return any(header.step == BINDING for header in _taking_part(received))


def any_steps(received: Bytes) -> bool:
    """Whether a rank is about to take a step."""
    return any(header.step != BINDING for header in _taking_part(received))


def _taking_part(received: Bytes) -> list[Header]:
    """The readable headers of ranks that have not joined."""
    headers = map(unpack, received)
    return [header for header in headers if header is not None and header.mode != JOINED]


def common_start(received: Bytes) -> int:
    """The first step that all ranks propose; 0 if they differ."""
    starts = {header.start for header in map(unpack, received) if header is not None}
    return starts.pop() if len(starts) == 1 else 0


def check(received: Bytes, rows: Sequence[int] | None = None) -> list[Header]:
    """Reads every rank's header and names the ranks that differ from most.

    Args:
        received: (size, SIZE) bytes, one header per rank.
        rows: number of rows that this rank expects of each rank; None for any number.

    Returns:
        The headers, in rank order.

    Raises:
        HeaderMismatchError: if a rank's header differs from most ranks', or its number of rows from the
            expected one. A rank that expects other numbers of rows than most ranks names itself alone. Where
            no majority sends the same, it names the sides in words and accuses nobody.
    """
    headers = [unpack(data) for data in received]
    usual, majority = _usual(headers)
    if not majority:
        raise HeaderMismatchError(
            f"the ranks are about to send different things, and no majority says whose are right "
            f"({_sides(headers)}): {_REMEDY}",
            [rank for rank, header in enumerate(headers) if header is None],
        )
    faults = {rank: _fault(header, usual) for rank, header in enumerate(headers)}
    # If this rank's own expectation is the odd one, it must not accuse all others.
    if rows is not None and usual.layout in (NONE, expectation(rows)):
        for rank, header in enumerate(headers):
            if header is not None and header.rows != rows[rank]:
                fault = f"rows {header.rows} where {rows[rank]} were bound"
                faults[rank] = f"{fault}, {faults[rank]}".removesuffix(", ")
    odd = [rank for rank, fault in faults.items() if fault]
    if odd:
        detail = "; ".join(f"rank {rank}: {faults[rank]}" for rank in odd)
        raise HeaderMismatchError(
            f"{names(odd)} would send something else than the other ranks ({detail}): {_REMEDY}", odd
        )
    return [header for header in headers if header is not None]


def check_joined(headers: Sequence[Header | None]) -> None:
    """Names the ranks that called `hvd.join()`, unless all did.

    Raises:
        JoinedRanksError: if some ranks joined and others go on.
    """
    joined = [rank for rank, header in enumerate(headers) if header is not None and header.mode == JOINED]
    if not joined or len(joined) == len(headers):
        return
    others = [rank for rank in range(len(headers)) if rank not in joined]
    raise JoinedRanksError(
        f"{names(joined)} called hvd.join() while {names(others)} went on. A rank that joined sends no row, "
        "so the rule would miss its workers. Give every rank the same number of steps: a DistributedSampler "
        "or redundancy.sampler(...), drop_last=True, or itertools.cycle(loader) up to the largest number of "
        "batches; then hvd.join() may stay",
        joined,
    )


def check_states(headers: Sequence[Header], step: int, agreed: int | None = None) -> bool:
    """Compares the digests of the ranks' parameters, where any rank sent one.

    Args:
        headers: every rank's, as `check` returned them.
        step: the optimizer step.
        agreed: the last step at which all were equal, or None.

    Returns:
        Whether they were compared.

    Raises:
        StateMismatchError: naming the ranks whose digest differs from the majority's; where there is none, it
            names the sides in words and accuses nobody.
    """
    states = [header.state for header in headers]
    if len(set(states)) == 1:
        return states[0] != NONE
    silent = [rank for rank, state in enumerate(states) if state == NONE]
    mismatch = StateMismatchError("", states)
    if silent:
        raise mismatch.with_detail(
            f"{names(silent)} sent no digest of its state at step {step}, and other ranks did: give all "
            "ranks the same check_state_every"
        )
    raise mismatch.with_detail(
        f"{differing(mismatch)} {since(step, agreed)}: broadcast them, or restore a checkpoint"
    )


def differing(mismatch: StateMismatchError) -> str:
    """The ranks of which sides differ, as the beginning of a sentence."""
    subject = "parameters, optimizer state or options (such as the learning rate)"
    if mismatch.ranks:
        whose = " and ".join(f"{names([rank])}'s" for rank in mismatch.ranks)
        return f"{whose} {subject} differ from the other ranks'"
    sides = " and ".join(names(side) for side in mismatch.sides)
    return f"the {subject} of {sides} differ, and no majority of ranks says whose are right,"


def expectation(rows: Sequence[int]) -> bytes:
    """Digest of the number of rows expected of each rank."""
    return of_text("rows", *map(str, rows))


def _usual(headers: Sequence[Header | None]) -> tuple[Header, bool]:
    """A header whose common fields are the most frequent, and whether most of those readable have them."""
    readable = [header for header in headers if header is not None]
    if not readable:
        raise HeaderMismatchError("no rank sent a readable header", range(len(headers)))
    ((common, count),) = Counter(header.common for header in readable).most_common(1)
    usual = next(header for header in readable if header.common == common)
    return usual, 2 * count > len(readable)


def _sides(headers: Sequence[Header | None]) -> str:
    """Which ranks send what: the fields that differ, of digests only that they do."""
    sides: dict[tuple[object, ...], list[int]] = {}
    for rank, header in enumerate(headers):
        if header is not None:
            sides.setdefault(header.common, []).append(rank)
    differing = [label for label, *values in zip(_LABELS, *sides, strict=True) if len(set(values)) > 1]

    def of(common: tuple[object, ...]) -> str:
        values = zip(_LABELS, common, strict=True)
        return ", ".join(
            f"another {label}" if isinstance(value, bytes) else f"{label} {value}"
            for label, value in values
            if label in differing
        )

    return "; ".join(f"{names(ranks)}: {of(common)}" for common, ranks in sides.items())


def _fault(header: Header | None, usual: Header) -> str:
    if header is None:
        return "unreadable header"
    differences = [
        f"{label} differs" if isinstance(want, bytes) else f"{label} {got} where most have {want}"
        for label, got, want in zip(_LABELS, header.common, usual.common, strict=True)
        if got != want
    ]
    return ", ".join(differences)


def since(step: int, agreed: int | None) -> str:
    """Since when states may differ that were equal at step `agreed`."""
    if agreed is None:
        return f"since step {step} or before"
    if agreed + 1 == step:
        return f"since step {step}"
    return f"since a step from {agreed + 1} to {step}"
