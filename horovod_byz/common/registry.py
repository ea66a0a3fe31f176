"""Registries by name: built-in, from installed packages, or a user's own as "module:attribute"."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from horovod_byz.common.words import PATH, known

__all__ = ["Registry", "imported", "options_of", "required_of"]

Kind = TypeVar("Kind")

_EXAMPLES = {
    "f": "1",
    "inner": "mean",
    "outer": "median",
    "groups": "5",
    "alpha": "0.1",
    "share": "0.3",
    "rule": "median",
}
_IMPORTED: dict[str, dict[str, str]] = {}


def imported() -> dict[str, dict[str, str]]:
    """The names resolved outside this package so far, each with its module and the digest of its source."""
    return {name: dict(origin) for name, origin in sorted(_IMPORTED.items())}


class Registry(Generic[Kind]):
    """The names of one kind of object on the command line, in TOML files, in Python and in tests.

    A name is looked up among those that were added, then among the entry points of installed packages. A name
    of the form "package.module:attribute" is imported.

    Args:
        what: the kind of object, for messages, such as "rule".
        group: the group of entry points, such as "horovod_byz.rules".
        accepts: whether an imported object is of this kind.
        wanted: description of accepted objects, for messages.

    Attributes:
        own: the added objects by name.
    """

    def __init__(self, what: str, group: str, accepts: Callable[[Any], bool], wanted: str) -> None:
        self.what, self.group = what, group
        self._accepts, self._wanted = accepts, wanted
        self.own: dict[str, Kind] = {}
        self._aliases: dict[str, str] = {}

    def add(self, name: str, thing: Kind) -> None:
        """Adds a name.

        Raises:
            ValueError: if another object has it.
        """
        if self.own.get(name, thing) is not thing:
            raise ValueError(f"a {self.what} named {name!r} is registered already: choose another name")
        self.own[name] = thing

    def alias(self, short: str, name: str) -> None:
        """Makes `short` an alias of `name`; lists of names leave it out."""
        self._aliases[short] = name

    def remove(self, name: str) -> None:
        """Removes a name that was added."""
        del self.own[name]

    def names(self) -> list[str]:
        """All names: those added, in their order, then those of installed packages."""
        return list(dict.fromkeys([*self.own, *self._installed]))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __getitem__(self, name: str) -> Kind:
        """The object with this name or alias.

        Raises:
            ValueError: if nothing has that name, it cannot be imported, or it is of another kind.
        """
        name = self._aliases.get(name, name)
        if name in self.own:
            return self.own[name]
        if name in self._installed:
            return self._load(name, self._installed[name].value)
        if PATH.fullmatch(name) and name.partition(":")[0] not in self.names():
            return self._load(name, name)
        known(name, self.names(), self.what, hidden=self._aliases)
        raise AssertionError(name)

    def name_of(self, thing: Kind) -> str:
        """The name of an object: the name it was added under, or "module:attribute"."""
        for name, other in self.own.items():
            if other is thing:
                return name
        return f"{getattr(thing, '__module__', '?')}:{getattr(thing, '__qualname__', '?')}"

    def check_options(self, name: str, options: Collection[str], given: Collection[str] = ()) -> None:
        """Checks the names of options for a dataclass.

        Args:
            name: its name.
            options: the options' names.
            given: options that the caller supplies.

        Raises:
            ValueError: if an option is unknown, or one without a default is missing.
        """
        kind = self[name]
        for option in options:
            known(option, options_of(kind), f"option of {self.what} {name!r}")
        self.check_given(name, required_of(kind), [*options, *given])

    def check_given(self, name: str, required: Iterable[str], given: Collection[str]) -> None:
        """Checks that all required options of a name are given.

        Raises:
            ValueError: if they are not; the message has an example.
        """
        required = list(required)
        missing = [option for option in required if option not in given]
        if missing:
            example = ",".join(f"{option}={_EXAMPLES.get(option, '...')}" for option in required)
            raise ValueError(
                f"{self.what} {name!r} is missing its option{'s' * (len(missing) > 1)} {', '.join(missing)}: "
                f"write for example {name + ':' + example!r}"
            )

    @cached_property
    def _installed(self) -> Mapping[str, EntryPoint]:
        return {entry.name: entry for entry in entry_points(group=self.group)}

    def _load(self, name: str, path: str) -> Kind:
        thing = _import(path, f"{self.what} {name!r}")
        if not self._accepts(thing):
            kind = "class" if isinstance(thing, type) else type(thing).__name__
            raise ValueError(f"{self.what} {name!r} is the {kind} {path}, not {self._wanted}: name one")
        _IMPORTED[name] = _origin(path.partition(":")[0])
        accepted: Kind = thing
        return accepted


def options_of(kind: Any) -> list[str]:
    """The options of a dataclass."""
    return [field.name for field in dataclasses.fields(kind) if field.init]


def required_of(kind: Any) -> list[str]:
    """The options of a dataclass that have no default."""
    missing = dataclasses.MISSING
    return [
        field.name
        for field in dataclasses.fields(kind)
        if field.init and field.default is missing and field.default_factory is missing
    ]


def _import(path: str, what: str) -> Any:
    """The object that "module:attribute" names.

    Raises:
        ValueError: if there is none; the message says whether the module or the attribute is missing.
    """
    place, _, attribute = path.partition(":")
    try:
        thing: Any = importlib.import_module(place)
    except ModuleNotFoundError as error:
        absent = error.name or place
        if place == absent or place.startswith(f"{absent}."):
            raise ValueError(
                f"{what}: there is no module {absent!r} in {Path.cwd()} or among the installed packages: "
                "start in the folder that holds it, or install its package"
            ) from error
        raise ValueError(
            f"{what}: its module {place!r} imports {absent!r}, which is not installed: install it"
        ) from error
    except (Exception, SystemExit) as error:  # a user's module may raise anything while it is imported, or
        # call sys.exit
        raise ValueError(
            f"{what}: importing its module {place!r} failed with {type(error).__name__}: {error}. Correct it "
            f"until `python -c 'import {place}'` works"
        ) from error
    for part in attribute.split("."):
        if not hasattr(thing, part):
            near = difflib.get_close_matches(part, dir(thing), n=1)
            hint = f"did you mean {near[0]!r}?" if near else "check its spelling"
            file = getattr(thing, "__file__", None) or place
            raise ValueError(f"{what}: {file} has no {part!r}: {hint}")
        thing = getattr(thing, part)
    return thing


def _origin(place: str) -> dict[str, str]:
    """The module and the digest of its source, to compare later whether a run used the same code."""
    try:
        source = inspect.getsource(importlib.import_module(place))
    except (OSError, TypeError):  # compiled, or without its source
        return {"module": place}
    return {"module": place, "sha256": hashlib.sha256(source.encode()).hexdigest()}
