"""Lets torchvision load beside a build of torch that its compiled library does not fit.

The torchvision wheel is compiled against torch with CUDA. Beside torch for CPU its library does not load,
and its Python part then fails on import, since it attaches properties to two operators that nobody has
declared (`RuntimeError: operator torchvision::nms does not exist`). Declaring them is enough for the data
sets, transforms and models; box operators stay without an implementation. Where torchvision's own library
loads, nothing is declared.

    from horovod_byz._torchvision import datasets, transforms
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import torch

__all__ = ["declare_missing_operators", "load"]

OPERATORS = ("nms", "qnms")
SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

_libraries: list[torch.library.Library] = []  # a declaration lasts as long as the library object that made it


def library_loads(folder: Path) -> bool:
    """Whether torchvision's compiled operators in `folder` load; loading them twice does no harm."""
    for library in sorted(folder.glob("_C*.so")):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            continue
        return True
    return False


def declare_missing_operators() -> bool:
    """Declares torchvision's operators where its own library cannot; call it before torchvision is imported.

    Returns:
        True when the declarations made here are in use, False when torchvision loads by itself or is absent.
    """
    if _libraries:
        return True
    spec = importlib.util.find_spec("torchvision")
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not folders or any(library_loads(Path(folder)) for folder in folders):
        return False
    missing = [name for name in OPERATORS if not hasattr(torch.ops.torchvision, name)]
    if not missing:
        return False
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in missing:
        library.define(name + SIGNATURE)
    _libraries.append(library)
    return True


def load(name: str = "torchvision") -> ModuleType:
    """Imports torchvision or one of its modules, for example `load("torchvision.datasets")`.

    Raises:
        ModuleNotFoundError: when torchvision is not installed; the message says how to install it.
    """
    declare_missing_operators()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise
        raise ModuleNotFoundError(
            "torchvision is not installed: pip install --no-deps -r requirements/torchvision.txt "
            "(without its dependencies, which would replace a CPU build of torch)",
            name="torchvision",
        ) from error


def __getattr__(name: str) -> ModuleType:
    if name not in ("datasets", "models", "transforms"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return load(f"torchvision.{name}")
