"""Commands that install missing parts: from the files of a checkout, or without one."""

from __future__ import annotations

from pathlib import Path

__all__ = ["checkout", "choose", "install", "pinned"]

_FILES = ("Makefile", "tools/build_horovod.py", "requirements/torch.txt")


def checkout(package: Path = Path(__file__).parents[1]) -> Path | None:
    """The checkout that the package was imported from; None where it was installed without one."""
    root = package.resolve().parent
    return root if all((root / file).is_file() for file in _FILES) else None


def choose(here: str, elsewhere: str) -> str:
    """`here` in a checkout, "{root}" in it standing for its folder, and `elsewhere` without one."""
    root = checkout()
    if root is None:
        return elsewhere
    return here.replace("{root}", "" if root == Path.cwd() else f"{root}/")


def install(name: str, options: str = "") -> str:
    """The command that installs a distribution: by its own file of requirements, or by name."""
    return choose(f"pip install {options}-r {{root}}requirements/{name}.txt", f"pip install {options}{name}")


def pinned(name: str) -> str:
    """The command that installs a distribution: in the version that a checkout pins, or by name."""
    return choose(f"pip install -c {{root}}requirements/constraints.txt {name}", f"pip install {name}")
