"""Side channels on which ranks announce their state; not collectives, so they work while ranks are missing.

Announcements decide only which ranks an error names.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import lru_cache
from typing import Protocol

from horovod_byz.collect import notice
from horovod_byz.collect.notice import Notice

_HTTP_SECONDS = 2.0
KEY_SIZE = 16
# Bytes of an entry: a notice and its signature.
ENTRY_SIZE = notice.SIZE + hashlib.sha256().digest_size


class Channel(Protocol):
    """A channel for the announcements of ranks. Neither method raises.

    Attributes:
        signs_of_life: whether ranks also announce themselves while they compute.
    """

    signs_of_life: bool

    def publish(self, own: Notice) -> None:
        """Announces this rank."""

    def read(self, ranks: Iterable[int]) -> dict[int, Notice] | None:
        """The last notice of each rank that published one; None if the channel cannot be read."""


class Silent:
    """No side channel: a late rank cannot be named."""

    signs_of_life = False

    def publish(self, own: Notice) -> None: ...

    def read(self, ranks: Iterable[int]) -> dict[int, Notice] | None:
        return None


@lru_cache(maxsize=1)
def own_key() -> bytes:
    """The key with which this process signs its entries in the launcher's store."""
    return os.urandom(KEY_SIZE)


class SignedStore(ABC):
    """A key-value store that every rank of the job can reach.

    Anybody on the network may write to it, and the launcher gives the ranks no secret. So each rank sends a
    key to every other rank over the job's own connections, and signs its entries with it (HMAC-SHA256).

    Attributes:
        keys: the ranks' keys; an entry of a rank without a key is accepted if it is well-formed.
    """

    signs_of_life = True

    def __init__(self, rank: int, size: int) -> None:
        self._rank, self._size = rank, size
        # The size is in the name, so that entries from before an elastic reset are not read as current ones.
        self._scope = f"horovod_byz.{size}"
        self._latest: dict[int, Notice] = {}
        self.keys: dict[int, bytes] = {}

    @abstractmethod
    def _put(self, entry: bytes) -> None:
        """Writes this rank's entry. Never raises."""

    @abstractmethod
    def _get(self, rank: int) -> bytes | None:
        """A rank's entry, or None; raises ConnectionError if the store does not answer."""

    def meet(self, keys: dict[int, bytes]) -> None:
        """Sets the ranks' keys, and forgets notices that were read under another key or none.

        A new process in a rank's place counts its announcements from 0, and anybody may have written an entry
        with a high count before the key arrived.
        """
        for rank, key in keys.items():
            if self.keys.get(rank) != key:
                self._latest.pop(rank, None)
        self.keys = keys

    def publish(self, own: Notice) -> None:
        packed = own.pack()
        self._put(packed + self._sign(packed, own_key()))

    def read(self, ranks: Iterable[int]) -> dict[int, Notice] | None:
        wanted = list(ranks)
        for rank in wanted:
            try:
                entry = self._get(rank)
            except ConnectionError:
                return None
            read = None if entry is None else self._open(rank, entry)
            # An attacker may replay an older entry, signature included: its beat is lower.
            if read is not None and (rank not in self._latest or read.beat >= self._latest[rank].beat):
                self._latest[rank] = read
        return {rank: self._latest[rank] for rank in wanted if rank in self._latest}

    def _open(self, rank: int, entry: bytes) -> Notice | None:
        packed, signature = entry[: notice.SIZE], entry[notice.SIZE :]
        key = self.keys.get(rank)
        # compare_digest takes constant time, so that a forger learns nothing from the duration.
        if key is not None and not hmac.compare_digest(signature, self._sign(packed, key)):
            return None
        return notice.unpack(packed, rank, self._size)

    def _sign(self, packed: bytes, key: bytes) -> bytes:
        return hmac.new(key, self._scope.encode() + packed, hashlib.sha256).digest()


class Rendezvous(SignedStore):
    """The key-value store of Horovod's launcher, which every Gloo job has and no rank hosts."""

    def __init__(self, rank: int, size: int, address: str) -> None:
        super().__init__(rank, size)
        self._address = address

    @classmethod
    def find(cls, rank: int, size: int) -> Rendezvous | Silent:
        """The launcher's store, as the environment of a Gloo job names it."""
        host = os.environ.get("HOROVOD_GLOO_RENDEZVOUS_ADDR")
        port = os.environ.get("HOROVOD_GLOO_RENDEZVOUS_PORT", "")
        if not host or not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 2**16):
            return Silent()
        return cls(rank, size, f"{host}:{port}")

    def _put(self, entry: bytes) -> None:
        self._ask("PUT", self._rank, entry)

    def _get(self, rank: int) -> bytes | None:
        return self._ask("GET", rank)

    def _ask(self, method: str, rank: int, data: bytes | None = None) -> bytes | None:
        """Calls the store; raises ConnectionError if a GET gets no answer, as when the launcher has ended."""
        connection = http.client.HTTPConnection(self._address, timeout=_HTTP_SECONDS)
        try:
            connection.request(method, f"/{self._scope}/{rank}", body=data)
            answer = connection.getresponse()
            # One byte more than an entry, so that a longer one fails the length check instead of being cut.
            return answer.read(ENTRY_SIZE + 1) if answer.status == http.client.OK else None
        except (OSError, ValueError, http.client.HTTPException) as error:
            if method == "GET":
                raise ConnectionError(f"the launcher's store does not answer: {error}") from error
            return None
        finally:
            connection.close()
