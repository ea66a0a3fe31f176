"""Side channels on which ranks announce where they stand; not a collective, so nobody is needed.

What is announced decides nothing but which ranks an error names.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import os
from collections.abc import Iterable
from functools import lru_cache
from typing import Protocol

from horovod_byz.collect import notice
from horovod_byz.collect.notice import Notice

_HTTP_SECONDS = 2.0
KEY_SIZE = 16


class Channel(Protocol):
    """Where ranks announce themselves. Neither method raises.

    Attributes:
        signs_of_life: whether ranks announce themselves here also while they compute.
    """

    signs_of_life: bool

    def publish(self, own: Notice) -> None:
        """Announces this rank."""

    def read(self, ranks: Iterable[int]) -> dict[int, Notice] | None:
        """The last notice of those ranks that gave one; None where nothing can be read."""


class Silent:
    """No side channel: a late rank cannot be named."""

    signs_of_life = False

    def publish(self, own: Notice) -> None: ...

    def read(self, ranks: Iterable[int]) -> dict[int, Notice] | None:
        return None


@lru_cache(maxsize=1)
def own_key() -> bytes:
    """The key of this process, with which it signs what it puts into the launcher's store."""
    return os.urandom(KEY_SIZE)


class Rendezvous:
    """The key-value store of Horovod's launcher, which every Gloo job has and no rank hosts.

    Anybody on the network may write to it, and the launcher gives the ranks no secret. So each rank sends
    every other a key on Horovod's own connections, when they first meet, and signs its entries (HMAC-SHA256).

    Attributes:
        keys: the ranks' keys; entries of a rank without one are believed if they are well-formed.
    """

    signs_of_life = True

    def __init__(self, rank: int, size: int, address: str) -> None:
        self._rank, self._size, self._address = rank, size, address
        # With the size, so that after an elastic reset nobody is taken for a rank of before.
        self._scope = f"horovod_byz.{size}"
        self._latest: dict[int, Notice] = {}
        self.keys: dict[int, bytes] = {}

    @classmethod
    def find(cls, rank: int, size: int) -> Rendezvous | Silent:
        """The launcher's store, as the environment of a Gloo job names it."""
        host = os.environ.get("HOROVOD_GLOO_RENDEZVOUS_ADDR")
        port = os.environ.get("HOROVOD_GLOO_RENDEZVOUS_PORT", "")
        if not host or not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 2**16):
            return Silent()
        return cls(rank, size, f"{host}:{port}")

    def meet(self, keys: dict[int, bytes]) -> None:
        """Takes the ranks' keys, and forgets what was read of a rank under another or none.

        A new process in a rank's place counts its announcements from 0; and anybody may have written an
        entry with a high count before its key was known.
        """
        for rank, key in keys.items():
            if self.keys.get(rank) != key:
                self._latest.pop(rank, None)
        self.keys = keys

    def publish(self, own: Notice) -> None:
        packed = own.pack()
        self._ask("PUT", self._rank, packed + self._sign(packed, own_key()))

    def read(self, ranks: Iterable[int]) -> dict[int, Notice] | None:
        wanted = list(ranks)
        for rank in wanted:
            try:
                entry = self._ask("GET", rank)
            except ConnectionError:
                return None
            read = None if entry is None else self._open(rank, entry)
            # An older entry put there again says nothing new.
            if read is not None and (rank not in self._latest or read.beat >= self._latest[rank].beat):
                self._latest[rank] = read
        return {rank: self._latest[rank] for rank in wanted if rank in self._latest}

    def _open(self, rank: int, entry: bytes) -> Notice | None:
        packed, signature = entry[: notice.SIZE], entry[notice.SIZE :]
        key = self.keys.get(rank)
        if key is not None and not hmac.compare_digest(signature, self._sign(packed, key)):
            return None
        return notice.unpack(packed, rank, self._size)

    def _sign(self, packed: bytes, key: bytes) -> bytes:
        return hmac.new(key, self._scope.encode() + packed, hashlib.sha256).digest()

    def _ask(self, method: str, rank: int, data: bytes | None = None) -> bytes | None:
        """Raises ConnectionError where the store does not answer a GET: it ends with the launcher."""
        connection = http.client.HTTPConnection(self._address, timeout=_HTTP_SECONDS)
        try:
            connection.request(method, f"/{self._scope}/{rank}", body=data)
            answer = connection.getresponse()
            # A byte more than an entry has, so that a longer one is seen to be longer.
            limit = notice.SIZE + hashlib.sha256().digest_size + 1
            return answer.read(limit) if answer.status == http.client.OK else None
        except (OSError, ValueError, http.client.HTTPException) as error:
            if method == "GET":
                raise ConnectionError(f"the launcher's store does not answer: {error}") from error
            return None
        finally:
            connection.close()
