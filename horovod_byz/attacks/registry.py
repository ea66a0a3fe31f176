"""Attacks by name, for the command line and for configuration files."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

from horovod_byz.attacks.base import Attack
from horovod_byz.common.registry import Registry
from horovod_byz.common.words import kebab
from horovod_byz.rules import Rule, as_rule, name_of

Kind = TypeVar("Kind", bound=type[Attack])


def _is_attack(thing: Any) -> bool:
    attack = isinstance(thing, type) and issubclass(thing, Attack) and not inspect.isabstract(thing)
    return attack and dataclasses.is_dataclass(thing)


ATTACKS: Registry[type[Attack]] = Registry(
    "attack", "horovod_byz.attacks", _is_attack, "a frozen dataclass derived from horovod_byz.attacks.Attack"
)
alias = ATTACKS.alias


def register(kind: Kind) -> Kind:
    """Registers an attack under its class name in kebab-case; a class decorator.

    Raises:
        ValueError: if another attack has this name.
    """
    ATTACKS.add(kebab(kind.__name__), kind)
    return kind


def names() -> tuple[str, ...]:
    """Names of all attacks, sorted, without aliases."""
    return tuple(sorted(ATTACKS.names()))


def by_name(name: str, **options: Any) -> Attack:
    """Returns the attack called `name`, with its options.

    Args:
        name: kebab-case class name such as "a-little-is-enough", an alias such as "alie", the name that an
            installed package gives its attack, or "package.module:Class".
        options: the attack's fields; those left out take their defaults.

    Returns:
        The attack.

    Raises:
        ValueError: if no attack has this name, an option is not one of its fields, or a field without a
            default is missing.

    Examples:
        >>> by_name("inner-product", epsilon=0.1)
        InnerProduct(epsilon=0.1)
    """
    ATTACKS.check_options(name, options)
    return ATTACKS[name](**options)


def from_data(data: str | Mapping[str, Any]) -> Attack:
    """Returns an attack from plain data: its name, or a table with `name` and its options.

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
    """Returns plain data (strings, numbers, lists) from which `from_data` builds an equal attack.

    Fields that are None are left out, since TOML cannot write them.

    Raises:
        ValueError: if the attack has a rule that no name stands for, such as a pipeline.
    """
    fields = dataclasses.fields(attack)  # type: ignore[arg-type]
    plain = {field.name: _plain(getattr(attack, field.name)) for field in fields}
    name = ATTACKS.name_of(type(attack))
    return {"name": name, **{key: value for key, value in plain.items() if value is not None}}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return _word(value) if isinstance(value, Rule) else value


def _word(rule: Rule) -> str:
    """The rule's name with its options, such as "multi-krum:f=2"."""
    options = [
        f"{field.name}={str(value).lower() if isinstance(value, bool) else value}"
        for field in dataclasses.fields(rule)
        if (value := getattr(rule, field.name)) != field.default
    ]
    word = ":".join(filter(None, [name_of(type(rule)), ",".join(options)]))
    try:
        same = as_rule(word) == rule
    except (TypeError, ValueError):
        same = False
    if not same:
        raise ValueError(f"no name stands for the rule {rule!r}: leave the rule out, or name another one")
    return word
