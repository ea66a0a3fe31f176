"""What pydantic finds wrong with a configuration, in the words of its user."""

from __future__ import annotations

import difflib
import types
import typing
from typing import Any

from pydantic import BaseModel

__all__ = ["explain"]


def explain(error: Any, whole: type[BaseModel]) -> str:
    """One line for one fault: where, what, and what would be right.

    Args:
        error: an entry of pydantic's `ValidationError.errors()`.
        whole: the table that was validated.
    """
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "model_type":
        short = f'"NAME", or {place} = ' if "name" in _table_at(whole, error["loc"]).model_fields else ""
        first = next(iter(_table_at(whole, error["loc"]).model_fields))
        return f"{place}: got {error['input']!r}; write {place} = {short}{{{first} = VALUE, OPTION = VALUE}}"
    if error["type"] != "extra_forbidden":
        message = error["msg"].removeprefix("Value error, ")
        return f"{place}: {message}, got {error['input']!r}" if place else message
    fields = list(_table_at(whole, error["loc"][:-1]).model_fields)
    near = difflib.get_close_matches(str(error["loc"][-1]), fields, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown option {place!r}: {hint}known are {', '.join(fields)}"


def _table_at(table: type[BaseModel], location: tuple[Any, ...]) -> type[BaseModel]:
    for part in location:
        annotation: Any = table.model_fields[part].annotation
        if isinstance(annotation, types.UnionType):
            annotation = typing.get_args(annotation)[0]
        table = annotation
    return table
