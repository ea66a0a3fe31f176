"""Where the ranks' states differ: the tensor is named, and replaced by the majority's, or the run stops."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

import numpy as np

from horovod_byz.collect import StateMismatchError, locating, restoring
from horovod_byz.collect.errors import names
from horovod_byz.collect.header import differing
from horovod_byz.collect.locating import Located
from horovod_byz.collect.protocol import Transport
from horovod_byz.collect.restoring import Replaced
from horovod_byz.ledger.evidence import Evidence
from horovod_byz.optimizer.leaves import Leaf, PlainLeaf, Tree, root_of

OnMismatch = Literal["repair", "stop"]

_LISTED = 3  # differing tensors that a text names


class KeepsRecords(Protocol):
    """What a mismatch is entered in: a `Ledger`."""

    def enter(self, evidence: Evidence) -> None: ...

    def act(
        self,
        step: int,
        action: str,
        worker: int | None = None,
        rank: int | None = None,
        detail: str = "",
    ) -> None: ...


def checked(value: str) -> OnMismatch:
    """The value of `on_state_mismatch`.

    Raises:
        ValueError: if it is another.
    """
    for known in get_args(OnMismatch):
        if value == known:
            return known  # type: ignore[no-any-return]
    raise ValueError(f'on_state_mismatch must be "repair" or "stop", got {value!r}')


@dataclass
class StateCheck:
    """The state that all ranks must share, for `Session.step(state=...)`.

    Args:
        leaves: gives the tensors and numbers as they are now.
        ledger: gets the evidence; None for none.
        on_mismatch: "repair": what differs is replaced by the majority's, bit for bit. "stop": an error.
        every: steps between two comparisons, 0 for never.
        first: the first step that the comparison may be due for; steps may have been skipped since.
        threads: threads that compute digests.
    """

    leaves: Callable[[], Iterable[Leaf]]
    ledger: KeepsRecords | None = None
    on_mismatch: OnMismatch = "repair"
    every: int = 1
    first: int = 0
    threads: int = 1
    _tree: Tree | None = field(default=None, init=False)

    def __call__(self, step: int) -> bytes:
        """The digest where states are compared: at multiples of `every` from `first` to `step`.

        Step 0 comes again when ranks are bound anew.
        """
        self._tree = None
        return self.tree.root if self.due(step) else b""

    def due(self, step: int) -> bool:
        """Whether states are compared at a step."""
        return bool(self.every) and step // self.every > (min(self.first, step) - 1) // self.every

    @property
    def tree(self) -> Tree:
        """The digests, computed once per comparison."""
        if self._tree is None:
            self._tree = Tree.of(self.leaves(), self.threads)
        return self._tree

    def agree(self, transport: Transport, step: int) -> tuple[int, ...]:
        """Compares the states outside a session's step, now; returns the ranks whose state was replaced.

        All ranks call it together.

        Raises:
            StateMismatchError: as `resolve`.
        """
        self._tree = None
        own = np.frombuffer(self.tree.root, np.uint8)
        states = [row.tobytes() for row in transport.exchange(own, "comparison of the state")]
        if len(set(states)) == 1:
            return ()
        bare = StateMismatchError("", states)
        mismatch = bare.with_detail(
            f"{differing(bare)} at step {step}: give most ranks the same, or restore a checkpoint"
        )
        self.resolve(transport, mismatch, step)
        return mismatch.ranks

    def resolve(self, transport: Transport, mismatch: StateMismatchError, step: int) -> None:
        """Names the ranks and tensors that differ, and replaces them by the majority's.

        Raises:
            StateMismatchError: if there is no majority, an option differs, or the run is to stop: if a rank
                of the majority says so.
        """
        try:
            self._resolve(transport, mismatch, step)
        except StateMismatchError as error:
            for rank in error.ranks:
                if self.ledger is not None:
                    self.ledger.act(step, "stop", None, rank, str(error))
            raise

    def _resolve(self, transport: Transport, mismatch: StateMismatchError, step: int) -> None:
        tree = self.tree
        replaces = self.on_mismatch == "repair"
        own = locating.Described(tree.structure, tree.digests, root_of, replaces)
        try:
            located = locating.locate(transport, own, mismatch)
        except StateMismatchError as error:
            self._enter(step, mismatch, "the set of tensors and options differs")
            raise error from mismatch
        texts = _texts(tree.leaves, located, mismatch)
        for rank in mismatch.ranks:
            verb = "differ" if len(located.differing[rank]) > 1 else "differs"
            self._enter(step, mismatch, f"{texts[rank]} {verb}", [rank])
        self._stop_if_options_differ(transport, located, mismatch)
        if not located.replaces:
            raise mismatch.with_detail(f"{mismatch} (first difference: {_first(texts)})")
        reports = restoring.replace(transport, tree.leaves, self._again, located, mismatch)
        for rank, report in reports.items():
            self._report(step, rank, texts[rank], tree.leaves, located, report, mismatch)

    def _again(self) -> bytes:
        """The digest after parts were replaced."""
        self._tree = None
        return self.tree.root

    def _enter(
        self, step: int, mismatch: StateMismatchError, what: str, ranks: Sequence[int] | None = None
    ) -> None:
        of = f"from {len(mismatch.majority)} of {len(mismatch.states)} ranks"
        for rank in mismatch.ranks if ranks is None else ranks:
            if self.ledger is not None:
                self.ledger.enter(Evidence(step, "proof", "state", rank=rank, detail=f"{what} {of}"))

    def _stop_if_options_differ(
        self, transport: Transport, located: Located, mismatch: StateMismatchError
    ) -> None:
        """An option of another value is an error of the script, which would make it again."""
        leaves = self.tree.leaves
        odd = {
            rank: [part for part in parts if not leaves[part].replaceable]
            for rank, parts in located.differing.items()
        }
        first = min((part for parts in odd.values() for part in parts), default=None)
        if first is None:
            return
        leaf = leaves[first]
        own = repr(leaf.value) if isinstance(leaf, PlainLeaf) else "a tensor"
        said = locating.values(transport, own)
        ranks = [rank for rank, parts in odd.items() if first in parts]
        others = next(rank for rank in range(len(said)) if rank not in ranks)
        which = ", ".join(f"{said[rank]} on rank {rank}" for rank in ranks)
        raise mismatch.with_detail(
            f"{leaf.name} is {which}, and {said[others]} on rank {others}: options such as the learning rate "
            "are the script's, and are not replaced; give all ranks the same"
        )

    def _report(
        self,
        step: int,
        rank: int,
        text: str,
        leaves: Sequence[Leaf],
        located: Located,
        report: Replaced,
        mismatch: StateMismatchError,
    ) -> None:
        parts = located.differing[rank]
        detail = f"{text} replaced by that of {names(mismatch.majority)}"
        if parts and report.values:
            leaf = leaves[parts[0]]
            count = leaf.size // leaf.itemsize
            where = f"{min(report.values, count)} of {count} values of {leaf.name} differed"
            detail += f" ({where}, the first at {min(report.first, count - 1)})"
        if self.ledger is not None:
            self.ledger.act(step, "repair", None, rank, detail)
        warnings.warn(f"step {step}, rank {rank}: {detail}", stacklevel=2)


def _texts(leaves: Sequence[Leaf], located: Located, mismatch: StateMismatchError) -> dict[int, str]:
    """What differs on each rank: the first tensors' names, and how many more."""
    texts = {}
    for rank, parts in located.differing.items():
        listed = ", ".join(leaves[part].name for part in parts[:_LISTED])
        more = f" and {len(parts) - _LISTED} more" if len(parts) > _LISTED else ""
        texts[rank] = listed + more or "the digest alone"
    return texts


def _first(texts: dict[int, str]) -> str:
    return "; ".join(f"{text} on rank {rank}" for rank, text in texts.items())
