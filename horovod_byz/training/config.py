"""The configuration of one run: a checked value that TOML files and command lines turn into."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import tomli_w
from blake3 import blake3
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from horovod_byz import attacks
from horovod_byz.attacks import Attack, Wire
from horovod_byz.collect import Collector, Compression, Root, Sharded, Symmetric, as_compression
from horovod_byz.common.registry import imported, options_of
from horovod_byz.common.words import known, parse_literal
from horovod_byz.redundancy.batches import Sampling
from horovod_byz.redundancy.groups import Redundancy
from horovod_byz.rules import Rule, pipelines
from horovod_byz.training import models
from horovod_byz.training.data import DATASETS, Normalise
from horovod_byz.training.explain import explain
from horovod_byz.training.named import Named
from horovod_byz.training.split import Split

_COLLECTORS: dict[str, type[Collector]] = {"symmetric": Symmetric, "root": Root, "sharded": Sharded}

__all__ = ["ConfigError", "Named", "RunConfig", "parse_literal", "read", "write"]


class ConfigError(ValueError):
    """A configuration that no run can be made from; the message says which option and what to do."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=True)


class Data(_Table):
    """What is trained on, and in which portions."""

    name: str = "digits"
    batch: int = Field(default=32, gt=0, description="images per worker and step")
    normalise: Normalise = "unit"
    sampling: Sampling = "random"
    partition: Split = Field(
        default=Split(name="iid"), description="how the training data are divided among the workers"
    )
    augment: bool = False
    memory_format: Literal["contiguous", "channels_last"] = Field(
        default="contiguous",
        description="torch's memory format of the images; the other one has other last bits, and other speed",
    )
    train_limit: int | None = Field(
        default=None, gt=0, description="use only the first training images (a reduced run)"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class Replicas(_Table):
    """Redundancy: which workers compute the same batch. `data.batch` is then r b / n."""

    r: int = Field(default=1, ge=1, description="workers per redundancy group; 1 means none")
    seed: int = Field(default=0, ge=0, description="seed of the partition into groups")
    compute: Literal["once", "every"] = Field(
        default="once",
        description="whether a rank computes a gradient once for its replicas of a group, or for each",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, value: Any) -> Any:
        return {"r": value} if isinstance(value, int) else value


class Optimizer(_Table):
    """The torch optimizer that applies the aggregate, and how its learning rate changes."""

    name: Literal["sgd", "adam"] = "sgd"
    lr: float = Field(default=0.1, gt=0)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(default=0.0, ge=0)
    decay: float = Field(
        default=1.0, gt=0, le=1, description="factor on lr at each multiple of decay_every, or milestone"
    )
    decay_every: int = Field(default=0, ge=0, description="steps; 0 means never")
    milestones: tuple[int, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    def lr_at(self, step: int) -> float:
        """The learning rate of a step: lr * decay^k after k decays."""
        times = sum(step >= milestone for milestone in self.milestones)
        if self.decay_every:
            times += step // self.decay_every
        return self.lr * self.decay**times


class RunConfig(_Table):
    """Everything that decides a run's numbers; where it runs and where it writes is not part of it."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    steps: int = Field(default=500, gt=0)
    workers: int = Field(default=20, gt=0)
    byzantine: int = Field(default=0, ge=0)
    schedule: Literal["first", "fixed", "redrawn"] = "fixed"
    attack: Named = Named(name="none")
    attack_start: int = Field(default=0, ge=0)
    script: tuple[dict[str, Any], ...] = ()
    rule: Named = Named(name="mean")
    redundancy: Replicas = Replicas()
    collect: Named = Named(name="symmetric")
    compression: Literal["none", "sign", "bfloat16", "float16"] = "none"
    model: Named = Named(name="mlp")
    data: Data = Data()
    optimizer: Optimizer = Optimizer()
    worker_momentum: float = Field(
        default=0.0, ge=0, lt=1, description="beta: each worker sends m = beta m + (1 - beta) gradient"
    )
    evaluate_every: int = Field(default=25, gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        DATASETS[self.data.name]
        models.check_options(self.model.name, self.model.options)
        self.data.partition.make()
        known(self.collect.name, _COLLECTORS, "way to collect")
        for option in self.collect.options:
            known(
                option, _fields(_COLLECTORS[self.collect.name]), f"option of collecting {self.collect.name!r}"
            )
            _check_switch(self.collect, option, _COLLECTORS[self.collect.name])
        self.make_collector()
        if self.byzantine > self.workers:
            raise ValueError(
                f"byzantine = {self.byzantine} of workers = {self.workers}: name at most all of them"
            )
        if self.attacked and self.byzantine == 0 and not self.script:
            raise ValueError(f"attack {self.attack.name!r} with byzantine = 0 attacks nobody: set byzantine")
        if self.script and self.attack.name != "none":
            raise ValueError("a script says itself who attacks and how: leave out attack, or script")
        options = pipelines.with_f(self.rule.name, self.rule.options, self.byzantine)
        object.__setattr__(self, "rule", Named.model_validate({"name": self.rule.name, **options}))
        self.make_redundancy().groups_of(self.workers)
        self.make_rule().check(self.workers)
        for event in self.script:
            _check_event(event, self.workers)
        self.make_wire()
        return self

    @property
    def attacked(self) -> bool:
        """Whether workers misbehave by an attack; a script is separate."""
        return self.attack.name != "none"

    def make_redundancy(self) -> Redundancy:
        """Which workers compute the same batch."""
        return Redundancy(self.redundancy.r, seed=self.redundancy.seed)

    def make_rule(self) -> Rule:
        """The aggregation rule."""
        return pipelines.make(self.rule.name, self.rule.options, self.make_redundancy(), self.workers)

    def make_attack(self) -> Attack | None:
        """The attack; None where there is none."""
        if not self.attacked:
            return None
        options = self.attack.options
        if "rule" in options_of(attacks.registry.ATTACKS[self.attack.name]):
            options = {"rule": self.make_rule(), **options}  # an attack that knows the rule
        return attacks.by_name(self.attack.name, **options)

    def make_wire(self) -> Wire | None:
        """What happens to rows on their way; None where nobody is Byzantine."""
        if self.script:
            return Wire(attacks.Script.from_data(self.script), seed=self.seed, start=self.attack_start)
        attack = self.make_attack()
        if attack is None:
            return None
        who = attacks.draw(self.workers, self.byzantine, self.schedule, self.seed)
        return Wire(who, attack, seed=self.seed, start=self.attack_start)

    def make_collector(self) -> Collector:
        """The way to collect."""
        try:
            return _COLLECTORS[self.collect.name](**self.collect.options)
        except TypeError as error:
            raise ValueError(str(error)) from error

    def make_compression(self) -> Compression:
        """How gradients are packed on their way."""
        return as_compression(self.compression)

    @property
    def own_code(self) -> dict[str, dict[str, str]]:
        """The run's names that lead out of this package, each with its module and its source's digest."""
        text = write(self)
        return {name: origin for name, origin in imported().items() if name in text}

    def to_data(self) -> dict[str, Any]:
        """Plain data from which `RunConfig.model_validate` makes an equal value; None is left out."""
        return self.model_dump(exclude_none=True)

    @property
    def identity(self) -> str:
        """A digest of all that decides the numbers of a step; the number of steps does not."""
        data = {**self.to_data(), "steps": 0}
        if not self.worker_momentum:  # runs of before it was an option go on
            del data["worker_momentum"]
        if not self.data.partition.divides:  # what runs were before there were partitions
            data["data"] = {key: value for key, value in data["data"].items() if key != "partition"}
        return blake3(json.dumps(data, sort_keys=True).encode()).hexdigest()

    @property
    def slug(self) -> str:
        """A folder name that shows the run's main choices."""
        attack = "script" if self.script else self.attack.name
        split = [self.data.partition.name] if self.data.partition.divides else []
        names = [self.data.name, *split, self.model.name, self.rule.name, attack, f"seed{self.seed}"]
        return "-".join(names).replace(":", ".")


def make(data: Mapping[str, Any]) -> RunConfig:
    """Check plain data and make a configuration of it.

    Raises:
        ConfigError: with one line per fault; an unknown option names the nearest known one.
    """
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(explain(fault, RunConfig) for fault in error.errors())) from error


def read(path: Path) -> dict[str, Any]:
    """Read a TOML file as plain data.

    Raises:
        ConfigError: when the file is missing or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot read {path} ({error.strerror}): name a TOML file that may be read"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML ({error}): write option = value, one a line") from error


def write(config: RunConfig) -> str:
    """The configuration as TOML text, all defaults spelled out."""
    return tomli_w.dumps(config.to_data())


def _check_switch(collect: Named, option: str, kind: Any) -> None:
    """Any value would do as true or false, and so hide a mistake."""
    default = {field.name: field.default for field in dataclasses.fields(kind)}[option]
    value = collect.options[option]
    if isinstance(default, bool) and not isinstance(value, bool):
        raise ValueError(f"collecting {collect.name!r} got {option} = {value!r}: use true or false")


def _check_event(event: Mapping[str, Any], n: int) -> None:
    """What `Script` cannot know or takes for granted: the number of workers, an attack's name."""
    if "attack" in event and not isinstance(event["attack"], str | dict):
        raise ValueError(
            f"an event's attack must be a name or a table with a name, got {event['attack']!r}: write "
            'attack = "zero", for example'
        )
    workers = event.get("workers")
    for worker in workers if isinstance(workers, list | tuple) else [workers]:
        if isinstance(worker, int) and worker >= n:
            raise ValueError(f"the script names worker {worker} of {n}: use workers 0 to {n - 1}")


def _fields(kind: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]
