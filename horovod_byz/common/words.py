"""Names with options in one word, and errors that name the nearest known one."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable
from typing import Any


def known(name: str, choices: Iterable[str], what: str) -> None:
    """Checks that a name is one of the choices.

    Raises:
        ValueError: if it is not; the message lists them and names the nearest.
    """
    names = list(choices)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown {what} {name!r}: {hint}choose one of {', '.join(names) or '(none)'}")


def parse_word(text: str) -> tuple[str, dict[str, Any]]:
    """Splits `"krum:f=6"` into a name and its options.

    Raises:
        ValueError: if the text is not of that form.
    """
    name, _, rest = text.partition(":")
    options: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, sign, literal = part.partition("=")
        if not sign:
            raise ValueError(f"{text!r} is not of the form name:option=value,option=value")
        options[key.strip()] = parse_literal(literal)
    return name.strip(), options


def parse_literal(text: str) -> Any:
    """A TOML value (number, boolean, list, quoted text) or, if it is none, the bare text."""
    text = text.strip()
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
