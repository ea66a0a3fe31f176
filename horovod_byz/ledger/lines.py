"""The lines of a ledger's file: JSON objects, read while it grows, or after its writer was killed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from horovod_byz.common.errors import ExplainedError

__all__ = ["Fields", "LedgerFileError", "read_lines"]

_RECORD = '{"record"'  # how each line begins
_MOST = 2**53  # whole numbers are below this
_LARGEST = 1e300  # larger numbers count as infinite, so that sums of all others are finite


class LedgerFileError(ExplainedError):
    """A file that is not a ledger's; the message names the file, the line, and what to do."""


@dataclass(frozen=True)
class Fields:
    """A record with checked access to its keys.

    Args:
        record: the JSON object.
        where: file and line, for errors.
    """

    record: dict[str, Any]
    where: str

    def whole(self, key: str) -> int | None:
        """A whole number; None where the key is missing or null.

        Raises:
            LedgerFileError: if it is something else.
        """
        value = self.number(key)
        if value is not None and not (value.is_integer() and abs(value) < _MOST):
            raise self._wrong(key, "a whole number")
        return None if value is None else int(value)

    def number(self, key: str) -> float | None:
        """A finite number; None where the key is missing, null, or not finite."""
        value = self.record.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(key, "a number")
        return float(value) if abs(value) < _LARGEST else None

    def text(self, key: str, most: int = 300) -> str:
        """A text of printable characters, "" where the key is missing or null.

        It may come from another rank, so control characters, which could move a terminal's cursor, and marks
        that turn the reading order become "?".
        """
        value = self.record.get(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self._wrong(key, "a text")
        return "".join(letter if letter.isprintable() else "?" for letter in value[:most])

    def wholes(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers; empty where the key is missing or null."""
        values = self._list(key)
        if not all(type(value) is int and abs(value) < _MOST for value in values):
            raise self._wrong(key, "a list of whole numbers")
        return tuple(values)

    def groups(self, key: str) -> tuple[tuple[int, ...], ...] | None:
        """A list of lists of whole numbers, or None."""
        if self.record.get(key) is None:
            return None
        inner = (Fields({key: value}, self.where) for value in self._list(key))
        return tuple(fields.wholes(key) for fields in inner)

    def tables(self, key: str) -> tuple[Fields, ...]:
        """A list of objects; empty where the key is missing or null."""
        values = self._list(key)
        if not all(isinstance(value, dict) for value in values):
            raise self._wrong(key, "a list of objects")
        return tuple(Fields(value, self.where) for value in values)

    def table(self, key: str) -> Fields:
        """An object; an empty one where the key is missing or null."""
        value = self.record.get(key)
        if value is None:
            return Fields({}, self.where)
        if not isinstance(value, dict):
            raise self._wrong(key, "an object")
        return Fields(value, self.where)

    def numbers(self) -> dict[str, float]:
        """All keys as finite numbers; keys that are null are left out."""
        values = {Fields({"key": key}, self.where).text("key", 40): self.number(key) for key in self.record}
        return {key: value for key, value in values.items() if value is not None}

    def _list(self, key: str) -> list[Any]:
        value = self.record.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self._wrong(key, "a list")
        return value

    def _wrong(self, key: str, wanted: str) -> LedgerFileError:
        got = repr(self.record[key])
        got = got if len(got) <= 40 else got[:37] + "..."
        return LedgerFileError(f"{self.where}: {key!r} must be {wanted}, got {got}: {_REMEDY}")


_REMEDY = "name a ledger.jsonl that this library wrote, or remove this line"


def read_lines(path: Path) -> tuple[list[Fields], list[str]]:
    """The records of a file, and notes on what was skipped.

    A process that is killed leaves a last line that is not whole. If the run is then resumed, the next record
    follows it, on the same line or the next.

    Raises:
        LedgerFileError: if another line is no record.
    """
    text = path.read_bytes().decode("utf-8", "replace")
    parts = text.split("\n")
    records: list[Fields] = []
    notes: list[str] = []
    torn = 0  # number of a line that is not whole and that only a new "run" record may follow
    for number, part in enumerate(parts, start=1):
        line = part.strip("\0 \t\r")  # a power failure may leave zeros
        if not line:
            continue
        record, whole = _record(line)
        if torn and (record is None or record.get("record") != "run"):
            raise _garbage(path, torn, parts[torn - 1])
        torn = number if record is None else 0
        if not whole:
            notes.append(f"{path.name}, line {number}: skipped what a process that was killed left there")
        if record is not None:
            records.append(Fields(record, f"{path}, line {number}"))
    if torn and (torn < len(parts) or not records) and not parts[torn - 1].startswith(_RECORD):
        raise _garbage(path, torn, parts[torn - 1])
    return records, notes


def _record(line: str) -> tuple[dict[str, Any] | None, bool]:
    """The record of a line or of its end, and whether it is all of the line."""
    value = _parsed(line)
    if value is not None:
        return value, True
    begin = line.rfind(_RECORD)
    return (_parsed(line[begin:]) if begin > 0 else None), False


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and isinstance(value.get("record"), str) else None


def _garbage(path: Path, number: int, line: str) -> LedgerFileError:
    shown = Fields({"line": line.strip("\0 \t\r")}, "").text("line", 40)
    return LedgerFileError(f"{path}, line {number} is no record of a ledger, got {shown!r}: {_REMEDY}")
