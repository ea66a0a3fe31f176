"""Attacks by name, for the command line and for configuration files."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from horovod_byz.attacks.base import Attack

    Kind = TypeVar("Kind", bound=type[Attack])

_ATTACKS: dict[str, type[Attack]] = {}
_ALIASES: dict[str, str] = {}


def kebab(name: str) -> str:
    """Return a class name in kebab-case: "ALittleIsEnough" -> "a-little-is-enough"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).lower()


def register(kind: Kind) -> Kind:
    """Class decorator: make an attack known to `by_name`.

    Raises:
        ValueError: another attack has this name.
    """
    name = kebab(kind.__name__)
    if name in _ATTACKS:
        raise ValueError(f"an attack named {name!r} is registered already: rename the class {kind.__name__}")
    _ATTACKS[name] = kind
    return kind


def alias(short: str, name: str) -> None:
    """Let `by_name(short)` stand for `by_name(name)`."""
    _ALIASES[short] = name


def names() -> tuple[str, ...]:
    """Names of all registered attacks, sorted, without aliases."""
    return tuple(sorted(_ATTACKS))


def by_name(name: str, **options: Any) -> Attack:
    """Return the attack called `name`, with its options.

    Args:
        name: kebab-case class name such as "a-little-is-enough", or an alias such as "alie".
        options: the attack's fields; those left out take their defaults.

    Returns:
        The attack.

    Raises:
        ValueError: no attack has this name, an option is not one of its fields, or a field without a default
            is missing.

    Examples:
        >>> by_name("inner-product", epsilon=0.1)
        InnerProduct(epsilon=0.1)
    """
    kind = _ATTACKS.get(_ALIASES.get(name, name))
    if kind is None:
        near = difflib.get_close_matches(name, [*_ATTACKS, *_ALIASES], n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"unknown attack {name!r}{hint}: use one of {', '.join(names())}")
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]  # every registered attack is a dataclass
    known = [field.name for field in fields]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"attack {name!r} has no option {unknown[0]!r}: it has {', '.join(known) or 'none'}")
    missing = [
        field.name for field in fields if field.default is dataclasses.MISSING and field.name not in options
    ]
    if missing:
        raise ValueError(
            f"attack {name!r} needs a value for {missing[0]!r}: pass {missing[0]}=..., "
            f"on the command line '{name}:{missing[0]}=...'"
        )
    return kind(**options)


def from_data(data: str | Mapping[str, Any]) -> Attack:
    """Return an attack from plain data: its name, or a table with `name` and its options.

    Raises:
        ValueError: as `by_name`; or the table has no `name`.

    Examples:
        >>> from_data({"name": "gaussian", "std": 10})
        Gaussian(std=10.0)
    """
    if isinstance(data, str):
        return by_name(data)
    if "name" not in data:
        raise ValueError(
            f'an attack table needs a name, got {dict(data)!r}: add name = "gaussian", for example'
        )
    return by_name(**data)


def to_data(attack: Attack) -> dict[str, Any]:
    """Return plain data (strings, numbers, lists) from which `from_data` builds an equal attack.

    Fields that are None are left out, since TOML cannot write them.
    """
    values = dataclasses.asdict(attack)  # type: ignore[call-overload]
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
    return {"name": attack.name, **{key: value for key, value in plain.items() if value is not None}}
