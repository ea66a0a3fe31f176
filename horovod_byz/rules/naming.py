"""Rules by name: "median", "krum:f=6", "mypackage.rules:Nearest:f=2"; errors name the nearest name."""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

from horovod_byz.common.registry import Registry, options_of, required_of
from horovod_byz.common.words import kebab, known, parse_word
from horovod_byz.rules.base import Rule, StatedRule

__all__ = [
    "PRESETS",
    "RULES",
    "as_rule",
    "by_name",
    "name_of",
    "names",
    "options_of",
    "register",
    "with_condition",
]

Kind = TypeVar("Kind", bound=type[Rule])


def _is_rule(thing: Any) -> bool:
    return isinstance(thing, type) and issubclass(thing, Rule) and not inspect.isabstract(thing)


RULES: Registry[type[Rule]] = Registry(
    "rule", "horovod_byz.rules", _is_rule, "a complete class derived from horovod_byz.Rule"
)

PRESETS: dict[str, str] = {}
"""DETOX's pairings by their names for configurations, such as "detox-median"; see `Detox.preset`."""

_VALUES = {
    "f": "1",
    "tau": "10.0",
    "inner": "hb.Mean()",
    "outer": "hb.Median()",
    "groups": "5",
    "redundancy": "hb.Redundancy(r=3)",
}


def register(kind: Kind, name: str | None = None) -> Kind:
    """Registers a rule under a name; also a class decorator.

    Args:
        kind: the class.
        name: default the class's name in kebab-case, such as "mean-around-median".

    Raises:
        ValueError: if another rule has that name.
    """
    RULES.add(name or kebab(kind.__name__), kind)
    return kind


def name_of(kind: type[Rule]) -> str:
    """The class's name on the command line, such as "mean-around-median" or "mypackage.rules:Nearest"."""
    return RULES.name_of(kind)


def names() -> list[str]:
    """All rule names of a configuration: classes, and DETOX's pairings."""
    return [*RULES.names(), *PRESETS]


def with_condition() -> list[type[StatedRule]]:
    """The classes that state a condition of their own, in the order of their names: all but pipelines."""
    return [kind for kind in RULES.own.values() if issubclass(kind, StatedRule)]


def by_name(name: str, **options: Any) -> Rule:
    """Makes a rule from its command-line name.

    Args:
        name: one of `names()`, or "package.module:Class".
        options: the rule's parameters, such as f=2.

    Raises:
        ValueError: if no rule has that name, it has no such parameter, lacks one, or needs redundancy groups.
        TypeError: if a parameter is of the wrong type.
    """
    if ":" not in name:
        known(name, names(), "rule")
    if name in PRESETS or (name == "detox" and "redundancy" not in options):
        raise ValueError(
            f"rule {name!r} needs redundancy groups, which a name cannot give: pass "
            "hb.Detox(redundancy, inner=..., outer=..., groups=...) or hb.Detox.preset(...), with the "
            "redundancy whose sampler the loader uses. As texts Python takes all rules but detox and its "
            "pairings; `horovod-byz train` takes those too"
        )
    RULES.check_options(name, options)
    return RULES[name](**options)


def as_rule(rule: Any, what: str = "rule") -> Rule:
    """The rule that an argument stands for: a rule itself, or its name as on the command line.

    Args:
        rule: such as `Krum(f=6)`, "krum:f=6", or "mypackage.rules:Nearest:f=6". Texts name every rule but
            "detox" and its pairings, which need redundancy groups.
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
        name, options = parse_word(rule)
        try:
            return by_name(name, **options)
        except TypeError as error:
            raise ValueError(f"{what} {rule!r}: {error}") from error
    if isinstance(rule, type) and issubclass(rule, Rule):
        arguments = ", ".join(f"{option}={_VALUES.get(option, '...')}" for option in required_of(rule))
        raise TypeError(
            f"{what} must be a rule, got the class {rule.__name__}: pass hb.{rule.__name__}({arguments}), "
            "not the class"
        )
    raise TypeError(
        f"{what} must be a rule such as hb.Krum(f=1), or its name such as 'krum:f=1', got {rule!r}"
    )
