"""Checks a documented shell command without running it: does what it names exist?

A check raises AssertionError with what is missing. `PLACEHOLDERS` stand for a user's own words.
"""

from __future__ import annotations

import inspect
import itertools
import re
import tomllib
from collections.abc import Callable, Set
from functools import cache
from pathlib import Path

import pytest
import typer.main

from horovod_byz.cli.main import app

ROOT = Path(__file__).resolve().parents[1]
PLACEHOLDERS = re.compile(r"\.\.\.|\(.*|[A-Z]+(\.\.\.)?|[\w./-]*/\.\.\.")
_VARIABLE = re.compile(r"([A-Z_]+)=(.*)")


def check(words: list[str]) -> None:
    """Checks one command by its first word; variables before it are left out."""
    while words and _VARIABLE.fullmatch(words[0]):
        words = words[1:]
    program, *arguments = words
    assert program in CHECKS or program.startswith("launch/"), f"no check for {program!r}"
    CHECKS.get(program, script)(arguments if program in CHECKS else words)


@cache
def targets() -> frozenset[str]:
    """Makefile's targets, the papers' artefacts among them."""
    explicit = re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    files = (ROOT / "launch" / "experiments").glob("*.toml")
    return frozenset(
        [*explicit, *(file.stem for file in files if re.search("^title", file.read_text(), re.M))]
    )


def make(arguments: list[str]) -> None:
    text = (ROOT / "Makefile").read_text()
    for word in arguments:
        if assigned := _VARIABLE.fullmatch(word):
            assert f"$({assigned[1]})" in text, f"make reads no {assigned[1]}"
        elif not PLACEHOLDERS.fullmatch(word):
            assert word in targets(), f"make has no target {word}"


def horovod_byz(arguments: list[str]) -> None:
    """Walks down the subcommands, then looks for each option; `bench` has a parser of its own."""
    command = typer.main.get_command(app)
    while hasattr(command, "commands") and arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
        if PLACEHOLDERS.fullmatch(name):
            return
        assert name in command.commands, f"horovod-byz has no command {name}"
        command = command.commands[name]
    if command.name != "bench":
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        options_exist(arguments, known)


def horovodrun(arguments: list[str]) -> None:
    """The options before the program are Horovod's; the program is checked by its own check."""
    known = horovods_options()
    at = next(i for i, word in enumerate(arguments) if word in CHECKS or PLACEHOLDERS.fullmatch(word))
    options_exist(arguments[:at], known)
    if arguments[at] in CHECKS:
        check(arguments[at:])


def torchrun(arguments: list[str]) -> None:
    """The options before the script are torch's; the script is checked as Python's."""
    parser = pytest.importorskip("torch.distributed.run").get_args_parser()
    known = {option for action in parser._actions for option in action.option_strings}
    takes_value = {
        option for action in parser._actions if action.nargs != 0 for option in action.option_strings
    }
    while arguments and arguments[0].startswith("-"):
        option, *arguments = arguments
        options_exist([option], known)
        if "=" not in option and option in takes_value:
            arguments = arguments[1:]
    if arguments and not PLACEHOLDERS.fullmatch(arguments[0]):
        (check if arguments[0] in CHECKS else python)(arguments)


@cache
def horovods_options() -> frozenset[str]:
    """As horovodrun's source has them: its parser lives inside a function that also parses."""
    launcher = pytest.importorskip("horovod.runner.launch", exc_type=ImportError)
    return frozenset(re.findall(r"'(--?[a-z][\w-]*)'", inspect.getsource(launcher.parse_args)))


def script(words: list[str]) -> None:
    """A launch script exists, can be executed, and mentions each of its options and verbs."""
    path, *arguments = words
    file = ROOT / path
    assert file.is_file(), f"there is no {path}"
    assert file.stat().st_mode & 0o100, f"{path} cannot be executed"
    text = file.read_text()
    for position, word in enumerate(arguments):
        if word in CHECKS:
            return check(arguments[position:])
        if PLACEHOLDERS.fullmatch(word):
            return None
        assert word in text or arguments[position - 1].startswith("--"), f"{path} knows no {word}"
    return None


def sbatch(arguments: list[str]) -> None:
    script([word for word in arguments if not word.startswith("--")])


def python(arguments: list[str]) -> None:
    """A module of ours exists; a file may be the user's own."""
    if arguments[0] == "-m" and arguments[1].startswith("horovod_byz"):
        place = ROOT.joinpath(*arguments[1].split("."))
        assert place.is_dir() or place.with_suffix(".py").is_file(), f"there is no module {arguments[1]}"
    elif "/" in arguments[0]:
        assert (ROOT / arguments[0]).is_file(), f"there is no {arguments[0]}"


def pip(arguments: list[str]) -> None:
    """`pip install` of ours with extras that exist, or from a file that exists."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in arguments:
        for extra in re.findall(r"^(?:horovod-byz|\.)\[([\w,-]+)\]", word):
            assert set(extra.split(",")) <= set(extras), f"there is no extra {extra}"


def docker(arguments: list[str]) -> None:
    """`docker build .` reads the Dockerfile, with build arguments that it has."""
    text = (ROOT / "Dockerfile").read_text()
    for word in arguments:
        if assigned := _VARIABLE.fullmatch(word):
            assert re.search(rf"^ARG {assigned[1]}=", text, re.MULTILINE), (
                f"Dockerfile takes no {assigned[1]}"
            )


def kubectl(arguments: list[str]) -> None:
    """Each file that is applied exists."""
    for flag, word in itertools.pairwise(arguments):
        if flag == "-f" and not PLACEHOLDERS.fullmatch(word):
            assert (ROOT / word).is_file(), f"there is no {word}"


def nothing(arguments: list[str]) -> None:
    """A word of the shell itself."""


def options_exist(words: list[str], known: Set[str]) -> None:
    for word in words:
        if word.startswith("-") and not re.fullmatch(r"-[\d.e]+", word):
            assert word.partition("=")[0] in known, f"no option {word}"


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "make": make,
    "horovod-byz": horovod_byz,
    "horovodrun": horovodrun,
    "torchrun": torchrun,
    "sbatch": sbatch,
    "python": python,
    "pip": pip,
    "docker": docker,
    "kubectl": kubectl,
    "export": nothing,
    "source": nothing,
    "cd": nothing,
    "git": nothing,
}
