"""Writes the Cython code between a kernel's declaration in a .pxd file and its entry in the C table.

kernels/generated/NAME.pxi, which NAME.pyx includes, defines each function that NAME.pxd declares: it calls
the entry. Where a kernel has a function for each dtype, ``kernel_f32`` and ``kernel_f64``, there is a third,
``kernel_of(rows, ...)``, which takes a Rows and calls the one for its dtype.

setup.py runs this before every build.
"""

import re
from pathlib import Path
from typing import NamedTuple

#: Functions whose entry in the table has another name; a new kernel needs none.
ENTRIES = {"statistics": "brsgd", "majority_bits": "bit_majority", "differences_bits": "bit_differences"}

HEADER = """\
# Made by tools/kernel_faces.py from {name}.pxd.
from horovod_byz.kernels.dispatch cimport kernels
from horovod_byz.kernels.rows cimport Rows

# The entries that are called below: dispatch.pxd need not declare them.
cdef extern from "core/kernels.h" nogil:
    ctypedef struct Table "HbKernels":
"""


class Function(NamedTuple):
    """A declared function: its name and, for each argument, type and name."""

    name: str
    arguments: tuple[tuple[str, str], ...]

    @property
    def entry(self) -> str:
        """The name of its entry in the table."""
        kernel = re.sub(r"_f(32|64)$", "", self.name)
        return ENTRIES.get(kernel, kernel) + self.name.removeprefix(kernel)

    @property
    def declared(self) -> str:
        """The arguments as in a declaration: rows, n and d on the first line, the others on the next."""
        arguments = [f"{kind}{name}" for kind, name in self.arguments]
        return ",\n            ".join([", ".join(arguments[:3]), ", ".join(arguments[3:])])

    def in_double(self) -> "Function":
        """The function for float64 that has to stand beside this one for float32."""
        arguments = tuple((re.sub(r"\bfloat\b", "double", kind), name) for kind, name in self.arguments)
        return Function(self.name.removesuffix("_f32") + "_f64", arguments)


def declared_functions(text: str) -> list[Function]:
    """The functions that a .pxd file declares, in order.

    Raises:
        ValueError: a function for one dtype has none, or one of another signature, for the other dtype.
    """
    functions = []
    declaration = r"^cdef int (\w+)\(([^)]*)\) noexcept nogil"
    for name, arguments in re.findall(declaration, re.sub(r"#.*", "", text), flags=re.M):
        pairs = re.findall(r"\s*([^,]*?)(\w+)\s*(?:,|$)", " ".join(arguments.split()))
        functions.append(Function(name, tuple(pairs)))
    single = [function for function in functions if function.name.endswith("_f32")]
    double = [function for function in functions if function.name.endswith("_f64")]
    wanted = [function.in_double() for function in single]
    for function in sorted(set(wanted) ^ set(double)):
        problem = "is missing beside that for float32" if function in wanted else "has none for float32"
        arguments = " ".join(function.declared.split())
        raise ValueError(f"{function.name}({arguments}) {problem}: declare both, alike but for the dtype")
    return functions


def forwarder(function: Function) -> str:
    """The definition of a declared function: a call of its entry."""
    names = ", ".join(name for _, name in function.arguments)
    return (
        f"\n\ncdef int {function.name}({function.declared}) noexcept nogil:\n"
        f"    return (<const Table *>kernels()).{function.entry}({names})\n"
    )


def chooser(single: Function) -> str:
    """``kernel_of(rows, ...)``: the call of a kernel's function for the dtype of the rows."""
    rest = single.arguments[3:]  # after rows, n and d, which a Rows holds
    taken = ", ".join(re.sub(r"\bfloat\b", "void", kind) + name for kind, name in rest)

    def call(function: Function) -> str:
        values = ["rows.pointers", "rows.n", "rows.d", *(name for _, name in rest)]
        depends = [
            kind != other for (kind, _), (other, _) in zip(single.arguments, double.arguments, strict=True)
        ]
        for i, (kind, _) in enumerate(function.arguments):
            if depends[i]:
                values[i] = f"<{kind.strip()}>{values[i]}"
        return f"{function.name}({', '.join(values)})"

    double = single.in_double()
    return (
        f"\n\ncdef int {single.name.removesuffix('_f32')}_of(Rows rows, {taken}) noexcept nogil:\n"
        f"    if rows.is_double:\n        return {call(double)}\n    return {call(single)}\n"
    )


def faces(name: str, text: str) -> str:
    """The text of NAME.pxi, given that of NAME.pxd; empty where NAME.pxd declares no kernel."""
    functions = declared_functions(text)
    if not functions:
        return ""
    fields = [f"        int (*{each.entry})({each.declared}) noexcept nogil\n" for each in functions]
    choosers = [chooser(function) for function in functions if function.name.endswith("_f32")]
    return "".join([HEADER.format(name=name), *fields, *map(forwarder, functions), *choosers])


def write_faces(folder: Path, names: tuple[str, ...]) -> None:
    """Write generated/NAME.pxi for each module whose .pxd declares kernels.

    A file that is right already keeps its time of change, so that Cython does not compile its module again.
    """
    (folder / "generated").mkdir(exist_ok=True)
    for name in names:
        path, text = folder / "generated" / f"{name}.pxi", faces(name, (folder / f"{name}.pxd").read_text())
        if text and not (path.exists() and path.read_text() == text):
            path.write_text(text)
