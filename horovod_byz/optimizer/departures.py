"""Sends parts of a gradient while a backward pass computes the rest; see `Sharded(overlap=True)`."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy.typing as npt
import torch

from horovod_byz.collect.sharded import ShardedSession
from horovod_byz.optimizer.rows import WorkerRows

_REMEDY = "with collect=Sharded(overlap=True) gradients are sent during backward()"


class Departures:
    """Sends each bucket of this rank's row when its gradients are complete, from the last to the first.

    All ranks send the buckets in that order, so that a bucket which is complete before the next waits for it.
    What has not left after the backward passes leaves in the step itself.

    Args:
        session: sends them.
        rows: the row, whose parameters are those of `ready`.
        begin: opens the session's step; returns False if this step must not begin before `synchronize()`.
    """

    def __init__(self, session: ShardedSession, rows: WorkerRows, begin: Callable[[], bool]) -> None:
        self._session, self._rows, self._begin = session, rows, begin
        self._index = {id(parameter): i for i, parameter in enumerate(rows.tensors)}
        ends = itertools.pairwise((0, *rows.segments))
        spans = session.buckets.spans
        self._buckets = [
            [number for number, (low, high) in enumerate(spans) if begin < high and low < end]
            for begin, end in ends
        ]
        self.reset()

    def reset(self) -> None:
        """Begins a new step."""
        self._held = False
        # The gradients that were copied to the row, with their versions, by parameter.
        self._taken: dict[int, tuple[torch.Tensor, int]] = {}
        self._missing = [0] * self._session.buckets.count
        for number in itertools.chain.from_iterable(self._buckets):
            self._missing[number] += 1

    def ready(self, parameter: torch.Tensor) -> None:
        """A parameter's gradient is complete; it may be changed only after `synchronize()`.

        Raises:
            LateRanksError, HeaderMismatchError: as the session's `open`, from within `backward()`.
        """
        i = self._index.get(id(parameter))
        if i is None or i in self._taken or parameter.grad is None:
            return
        self._rows.take(i)
        self._taken[i] = (parameter.grad, parameter.grad._version)
        for number in self._buckets[i]:
            self._missing[number] -= 1
        while not self._held and self._leaves_next():
            if not self._session.is_open and not self._begin():
                self._held = True
                return
            self._session.send(self._rows.array())

    def _leaves_next(self) -> bool:
        left = self._session.buckets.count - self._session.sent
        return left > 0 and not self._missing[left - 1]

    def fill(self) -> npt.NDArray[Any]:
        """Copies to the row what is not there yet; returns it, `(1, d)`.

        Raises:
            RuntimeError: if a gradient was changed that has left.
        """
        first = self._session.buckets.count - self._session.sent  # the buckets from here on have left
        for i, parameter in enumerate(self._rows.tensors):
            grad, version = self._taken.get(i, (None, 0))
            if grad is not None and parameter.grad is grad and grad._version == version:
                continue
            if max(self._buckets[i], default=-1) >= first:
                raise self._changed(i)
            self._rows.take(i)
        return self._rows.array()

    def _changed(self, i: int) -> RuntimeError:
        return RuntimeError(
            f"the gradient of {self._rows.names[i]} was changed after backward() had computed it: {_REMEDY}, "
            "so change it after optimizer.synchronize() (clip, unscale), and step inside "
            "optimizer.skip_synchronize(); or use collect='sharded'"
        )

    def refuse_to_drop(self, what: str) -> None:
        """Forgets the gradients of this step, but for those that are on their way to the other ranks.

        Raises:
            RuntimeError: if some are; the other ranks learn why.
        """
        if self._session.is_current and self._session.is_open:
            self._session.refuse(
                f"{what} would drop gradients of step {self._session.next_step}, which the other ranks are "
                f"about to get: {_REMEDY}, so call step() after each backward(); or use collect='sharded' in "
                "a loop that drops gradients"
            )
        self.reset()
