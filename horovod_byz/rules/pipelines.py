"""Rules from a configuration with workers and redundancy groups: all rules, and DETOX's pairings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from horovod_byz.common.words import known, parse_word
from horovod_byz.redundancy.groups import Redundancy
from horovod_byz.rules.base import Rule
from horovod_byz.rules.composed import MAPS
from horovod_byz.rules.detox import Detox
from horovod_byz.rules.draco import Draco
from horovod_byz.rules.naming import PRESETS, RULES, by_name, names, options_of
from horovod_byz.rules.vote import MajorityVote

_STAGES = ("inner", "outer")
_VOTE = ("tolerance", "scope", "lazy")


def options_for(name: str) -> list[str]:
    """The options of a rule in a configuration.

    Raises:
        ValueError: if no rule has that name, or "package.module:Class" cannot be imported.
    """
    if ":" not in name:
        known(name, names(), "rule")
    if name in PRESETS:
        return ["f"]
    if name == "detox":
        return [option for option in options_of(Detox) if option not in ("redundancy", "vote")] + [*_VOTE]
    return options_of(RULES[name])


def with_f(name: str, options: Mapping[str, Any], byzantine: int) -> dict[str, Any]:
    """Checks a rule's name and options, and fills in f: the number of Byzantine workers, unless given.

    In a pipeline's chain each stage gets it that takes an f.

    Raises:
        ValueError: if the rule or an option is unknown; the message names the nearest.
    """
    fields = options_for(name)
    for option in options:
        known(option, fields, f"option of rule {name!r}")
    if name == "pipeline" and isinstance(options.get("chain"), str):
        stages = re.split(r"\+(?=[A-Za-z_])", options["chain"])
        return {**options, "chain": "+".join(_stage_with_f(stage, byzantine) for stage in stages)}
    return {"f": byzantine, **options} if "f" in fields else dict(options)


def _stage_with_f(word: str, byzantine: int) -> str:
    name, options = parse_word(word)
    kind = MAPS[name] if name in MAPS.names() else RULES[name]
    if "f" not in options_of(kind) or "f" in options:
        return word
    return f"{word}{',' if options else ':'}f={byzantine}"


def make(name: str, options: Mapping[str, Any], redundancy: Redundancy, n: int) -> Rule:
    """Makes a rule from its name and options.

    `detox` and `hierarchical` take `inner` and `outer` as words such as "multi-krum:f=2".

    Args:
        name: one of `naming.names()`, or "package.module:Class".
        options: the rule's options, f included.
        redundancy: which workers compute the same batch, for DETOX.
        n: number of workers, for DETOX's pairings.

    Raises:
        ValueError: if an option is missing or has a bad value.
    """
    values = dict(options)
    try:
        if name in PRESETS:
            return Detox.preset(PRESETS[name], redundancy, n, values.pop("f"))
        for stage in _STAGES if name in ("detox", "hierarchical") else ():
            if stage in values:
                values[stage] = _stage(str(values[stage]), redundancy, n)
        if name == "detox":
            RULES.check_given(name, ("inner", "outer", "groups"), {"groups", *values})
            vote = MajorityVote(**{option: values.pop(option) for option in _VOTE if option in values})
            return Detox(redundancy, vote=vote, **values)
        if name == "draco":
            return _draco({"seed": redundancy.seed, **values}, redundancy)
        return by_name(name, **values)
    except TypeError as error:
        raise ValueError(str(error)) from error


def _draco(values: Mapping[str, Any], redundancy: Redundancy) -> Draco:
    RULES.check_options("draco", values)
    rule = Draco(**values)
    if rule.code == "cyclic" and redundancy.r != 1:
        raise ValueError(
            f"rule 'draco:code=cyclic' has n batches of its own, of which each worker computes {rule.r}: got "
            f"redundancy.r = {redundancy.r}, use redundancy = 1 (--set redundancy.r=1)"
        )
    if rule.code == "repetition" and rule.redundancy != redundancy:
        seed = "" if rule.seed == redundancy.seed else f" --set redundancy.seed={rule.seed}"
        raise ValueError(
            f"rule 'draco' with f = {rule.f} needs redundancy groups of r = {rule.condition.bound} + 1 = "
            f"{rule.r} (seed {rule.seed}), got r = {redundancy.r} (seed {redundancy.seed}): use "
            f"--set redundancy.r={rule.r}{seed}"
        )
    return rule


def _stage(word: str, redundancy: Redundancy, n: int) -> Rule:
    name, options = parse_word(word)
    return make(name, with_f(name, options, 0), redundancy, n)
