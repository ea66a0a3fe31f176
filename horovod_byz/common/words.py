"""Parses names with options, such as "krum:f=6"; errors suggest the nearest known name."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable
from typing import Any

PATH = re.compile(r"([A-Za-z_]\w*(?:\.\w+)*:[A-Za-z_]\w*(?:\.\w+)*)(?::(.*))?")
"""A name of the form "package.module:attribute", and options behind it."""


def kebab(name: str) -> str:
    """A class name in kebab-case: "ALittleIsEnough" -> "a-little-is-enough"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).lower()


def known(name: str, choices: Iterable[str], what: str, *, hidden: Iterable[str] = ()) -> None:
    """Checks that a name is one of the choices.

    Args:
        name: the name.
        choices: the names that the message lists.
        what: what is named, for the message.
        hidden: other names that the message may suggest, such as short forms.

    Raises:
        ValueError: if it is not; the message lists them and names the nearest.
    """
    names = list(choices)
    if name not in names:
        if name.partition(":")[0] in names:
            raise ValueError(f"{name!r} is not of the form name:option=value,option=value")
        near = difflib.get_close_matches(name, [*names, *hidden], n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown {what} {name!r}: {hint}choose one of {', '.join(names) or '(none)'}")


def parse_word(text: str) -> tuple[str, dict[str, Any]]:
    """Splits `"krum:f=6"`, or `"package.module:Rule:f=6"`, into a name and its options.

    Raises:
        ValueError: if the text is not of that form.
    """
    path = PATH.fullmatch(text.strip())
    name, rest = (path[1], path[2] or "") if path else text.partition(":")[::2]
    options: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, sign, literal = part.partition("=")
        if not sign:
            raise ValueError(f"{text!r} is not of the form name:option=value,option=value")
        if key.strip() in options:
            raise ValueError(f"{text!r} gives the option {key.strip()} twice: give it once")
        options[key.strip()] = parse_literal(literal)
    return name.strip(), options


def parse_literal(text: str) -> Any:
    """The text as a TOML value (number, boolean, list, quoted text), or else as it is."""
    text = text.strip()
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
