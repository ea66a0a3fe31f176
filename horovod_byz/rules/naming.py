"""Rules by name: "median", "krum:f=6", and what is said of anything else that is given as a rule."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable
from typing import Any

from horovod_byz.common.words import known, parse_word
from horovod_byz.rules.base import Rule

_KINDS: dict[str, type[Rule]] = {}


def name_of(kind: type[Rule]) -> str:
    """The class's name on the command line, such as "mean-around-median"."""
    if kind.__name__ == "BrSGD":
        return "brsgd"
    return re.sub(r"(?<!^)(?=[A-Z])", "-", kind.__name__).lower()


def register(*kinds: type[Rule]) -> None:
    """Makes rules known by their names."""
    _KINDS.update((name_of(kind), kind) for kind in kinds)


def names() -> list[str]:
    """The rules' names for the command line, such as "mean-around-median"."""
    return list(_KINDS)


def options_of(name: str) -> list[str]:
    """The options of a rule, by its name."""
    return [field.name for field in dataclasses.fields(_KINDS[name])]


def by_name(name: str, **options: Any) -> Rule:
    """Makes a rule from its command-line name.

    Args:
        name: one of `names()`.
        options: the rule's parameters, such as f=2.

    Raises:
        ValueError: if no rule has that name, the rule has no such parameter, or one is missing.
        TypeError: if a parameter is of the wrong type.
    """
    known(name, _KINDS, "rule")
    for option in options:
        known(option, options_of(name), f"option of rule {name!r}")
    check_given(name, _required(_KINDS[name]), options)
    return _KINDS[name](**options)


def check_given(name: str, required: Iterable[str], given: Collection[str]) -> None:
    """Checks that the options that a rule cannot do without are given.

    Raises:
        ValueError: if they are not; the message has an example.
    """
    required = list(required)
    missing = [option for option in required if option not in given]
    if missing:
        example = ",".join(f"{option}={_EXAMPLES.get(option, '...')}" for option in required)
        raise ValueError(
            f"rule {name!r} is missing its option{'s' * (len(missing) > 1)} {', '.join(missing)}: "
            f"write for example {name + ':' + example!r}"
        )


def as_rule(rule: Any, what: str = "rule") -> Rule:
    """The rule that an argument stands for: a rule itself, or its name as on the command line.

    Args:
        rule: such as `Krum(f=6)` or "krum:f=6".
        what: the argument, for messages.

    Raises:
        ValueError: if it is a text that names no rule, or not all of its options; the message has an example.
        TypeError: if it is a class in place of its value, or anything else.

    Examples:
        >>> as_rule("multi-krum:f=2")
        MultiKrum(f=2, m=None)
    """
    if isinstance(rule, Rule):
        return rule
    if isinstance(rule, str):
        return _from_word(rule, what)
    if isinstance(rule, type) and issubclass(rule, Rule):
        arguments = ", ".join(f"{option}={_VALUES.get(option, '...')}" for option in _required(rule))
        raise TypeError(
            f"{what} must be a rule, got the class {rule.__name__}: pass hb.{rule.__name__}({arguments}), "
            "not the class"
        )
    raise TypeError(
        f"{what} must be a rule such as hb.Krum(f=1), or its name such as 'krum:f=1', got {rule!r}"
    )


_EXAMPLES = {"f": "1", "inner": "mean", "outer": "median", "groups": "5"}
_VALUES = {**_EXAMPLES, "inner": "hb.Mean()", "outer": "hb.Median()", "redundancy": "hb.Redundancy(r=3)"}


def _required(kind: type[Rule]) -> list[str]:
    missing = dataclasses.MISSING
    return [
        field.name
        for field in dataclasses.fields(kind)
        if field.default is missing and field.default_factory is missing
    ]


def _from_word(text: str, what: str) -> Rule:
    name, options = parse_word(text)
    if name.partition("-")[0] == "detox":
        raise ValueError(
            f"{what} {text!r} does not say which workers compute the same batch: pass "
            "hb.Detox(redundancy, inner=..., outer=..., groups=...) or hb.Detox.preset(...), with the "
            "redundancy whose sampler the loader uses"
        )
    try:
        return by_name(name, **options)
    except TypeError as error:
        raise ValueError(f"{what} {text!r}: {error}") from error
