"""Side channels on which a waiting rank says where it stands; not a collective, so nobody is needed.

What is announced decides nothing but the wording of an error.
"""

from __future__ import annotations

import http.client
import os
from contextlib import suppress
from typing import Any, Protocol

import numpy as np

from horovod_byz.collect.mpi_guard import MpiGuard

_HTTP_SECONDS = 2.0


class Channel(Protocol):
    """Where ranks announce their position, a number that grows with each wait."""

    def publish(self, position: int) -> None:
        """Announces this rank's position."""

    def positions(self) -> dict[int, int] | None:
        """The last position that each rank announced; None where the channel cannot tell."""


class Silent:
    """No side channel: a late rank cannot be named."""

    def publish(self, position: int) -> None: ...

    def positions(self) -> dict[int, int] | None:
        return None


class Rendezvous:
    """The key-value store of Horovod's launcher, which every Gloo job has and no rank hosts.

    Plain decimal text is stored. Horovod's own client would pickle the values, and unpickle what
    anybody on the network put there.
    """

    def __init__(self, rank: int, size: int, name: str, address: str) -> None:
        self._rank, self._size, self._address = rank, size, address
        # With the size, so that after an elastic reset nobody is taken for a rank of before.
        self._scope = f"horovod_byz.{name}.{size}"

    @classmethod
    def find(cls, rank: int, size: int, name: str) -> Rendezvous | Silent:
        """The launcher's store, as the environment of a Gloo job names it."""
        host = os.environ.get("HOROVOD_GLOO_RENDEZVOUS_ADDR")
        port = os.environ.get("HOROVOD_GLOO_RENDEZVOUS_PORT")
        if not host or not port or not port.isdigit() or int(port) < 1:
            return Silent()
        return cls(rank, size, name, f"{host}:{port}")

    def publish(self, position: int) -> None:
        self._ask("PUT", self._rank, str(position).encode())

    def positions(self) -> dict[int, int] | None:
        found = {}
        for rank in range(self._size):
            text = self._ask("GET", rank)
            if text is not None and text.lstrip(b"-").isdigit():
                found[rank] = int(text)
        return found or None

    def _ask(self, method: str, rank: int, text: bytes | None = None) -> bytes | None:
        connection = http.client.HTTPConnection(self._address, timeout=_HTTP_SECONDS)
        try:
            connection.request(method, f"/{self._scope}/{rank}", body=text)
            answer = connection.getresponse()
            return answer.read(64) if answer.status == http.client.OK else None
        except (OSError, http.client.HTTPException):  # the store may be gone with the launcher
            return None
        finally:
            connection.close()


class Messages:
    """Small MPI messages to every other rank, read only when somebody has to be named."""

    _TAG = 17

    def __init__(self, communicator: Any, guard: MpiGuard) -> None:
        self._comm, self._guard = communicator, guard
        self._latest: dict[int, int] = {}
        self._pending: list[Any] = []

    def publish(self, position: int) -> None:
        with suppress(ConnectionError), self._guard.calls():
            self._pending = [(request, data) for request, data in self._pending if not request.Test()]
            data = np.array([position], np.int64)
            for rank in range(self._comm.size):
                if rank != self._comm.rank:
                    self._pending.append((self._comm.Isend(data, dest=rank, tag=self._TAG), data))

    def positions(self) -> dict[int, int] | None:
        data = np.empty(1, np.int64)
        try:
            with self._guard.calls():
                for rank in range(self._comm.size):
                    while self._comm.Iprobe(source=rank, tag=self._TAG):
                        self._comm.Recv(data, source=rank, tag=self._TAG)
                        self._latest[rank] = int(data[0])
        except ConnectionError:
            return None
        return dict(self._latest)
