"""Rules by name for configurations: the simple ones, and the pipelines that are built from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from horovod_byz import rules
from horovod_byz.common.words import known, parse_word
from horovod_byz.redundancy.groups import Redundancy
from horovod_byz.rules import Detox, Draco, MajorityVote, Rule
from horovod_byz.rules.detox import PRESETS
from horovod_byz.rules.naming import check_given, options_of

# "detox-median" and its like: the paper's pairings, whose inner f is the worst case after the vote.
_PRESETS = {f"detox-{name}": name for name in PRESETS}
_STAGES = ("inner", "outer")
_OWN = {
    **dict.fromkeys(_PRESETS, ("f",)),
    "detox": (*_STAGES, "groups", "partition", "seed", "tolerance", "scope", "lazy"),
    "hierarchical": (*_STAGES, "groups", "partition", "seed"),
}


def names() -> list[str]:
    """All names that `make` knows."""
    return list(dict.fromkeys([*rules.names(), *_OWN]))


def with_f(name: str, options: Mapping[str, Any], byzantine: int) -> tuple[str, dict[str, Any]]:
    """Checks a rule's name and options, and fills in f: the number of Byzantine workers, unless given.

    Raises:
        ValueError: if the rule or an option is unknown; the message names the nearest.
    """
    known(name, names(), "rule")
    fields = _OWN[name] if name in _OWN else options_of(name)
    for option in options:
        known(option, fields, f"option of rule {name!r}")
    return name, {"f": byzantine, **options} if "f" in fields else dict(options)


def make(name: str, options: Mapping[str, Any], redundancy: Redundancy, n: int) -> Rule:
    """Makes a rule from its name and options.

    `detox` and `hierarchical` take `inner` and `outer` as words such as "multi-krum:f=2".

    Args:
        name: one of `names()`.
        options: the rule's options, f included.
        redundancy: which workers compute the same batch, for DETOX.
        n: number of workers, for DETOX's presets.

    Raises:
        ValueError: if an option is missing or has a bad value.
    """
    values = dict(options)
    try:
        if name in _PRESETS:
            return Detox.preset(_PRESETS[name], redundancy, n, values.pop("f"))
        for stage in _STAGES if name in _OWN else ():
            if stage in values:
                values[stage] = _stage(str(values[stage]), redundancy, n)
        if name == "detox":
            check_given(name, ("inner", "outer", "groups"), {"groups", *values})
            vote = MajorityVote(
                **{name: values.pop(name) for name in ("tolerance", "scope", "lazy") if name in values}
            )
            return Detox(redundancy, vote=vote, **values)
        if name == "draco":
            return _draco({"seed": redundancy.seed, **values}, redundancy)
        return rules.by_name(name, **values)
    except TypeError as error:
        raise ValueError(str(error)) from error


def _draco(values: Mapping[str, Any], redundancy: Redundancy) -> Draco:
    rule = Draco(**values)
    if rule.code == "cyclic" and redundancy.r != 1:
        raise ValueError(
            f"rule 'draco:code=cyclic' has n batches of its own, of which each worker computes {rule.r}: use "
            f"redundancy = 1, got {redundancy.r}"
        )
    if rule.code == "repetition" and rule.redundancy != redundancy:
        raise ValueError(
            f"rule 'draco' with f = {rule.f} needs redundancy groups of r = 2f + 1 = {rule.r} (seed "
            f"{rule.seed}), got r = {redundancy.r} (seed {redundancy.seed}): set redundancy to them"
        )
    return rule


def _stage(word: str, redundancy: Redundancy, n: int) -> Rule:
    name, options = parse_word(word)
    return make(*with_f(name, options, 0), redundancy, n)
