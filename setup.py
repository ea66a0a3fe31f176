"""Builds the kernels: C++ once per instruction set, and the thin Cython modules in front of it.

tools/kernel_faces.py writes what those modules have in common, from their .pxd files;
tools/networks/header.py writes comparator networks as C++, from kernels/core/networks.txt.

The folder ``kernels/`` becomes the package ``horovod_byz.kernels``. Cython finds .pxd files by walking
folders and does not read ``package_dir``, hence the link ``horovod_byz/kernels -> ../kernels``, which git
ignores.

Environment: HOROVOD_BYZ_DEBUG=1 turns Cython's bounds checks on and the C++ optimiser down.
HOROVOD_BYZ_SANITIZE=1 builds them with AddressSanitizer and UndefinedBehaviorSanitizer, whose libraries the
interpreter must load first; tools/sanitize.py does both.
HOROVOD_BYZ_CACHE names a folder that keeps compiled objects for other builds of the same sources, such as
the wheel's after the checkout's; by default they stay in build/.
HOROVOD_BYZ_SOURCE is the address under which the files of this version can be read: the links of README.md
lead there in the package's description.
"""

import hashlib
import os
import platform
import posixpath
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tools" / "networks")]  # which a build front end does not
from header import write_networks  # noqa: E402
from kernel_faces import write_faces  # noqa: E402

CORE = Path("kernels/core")
MODULES = (
    "brsgd",
    "coordinate",
    "dispatch",
    "distances",
    "linear",
    "mixing",
    "rows",
    "scan",
    "signs",
    "vote",
)
OBJECTS = Path(os.environ.get("HOROVOD_BYZ_CACHE", "build")).expanduser() / "objects"
DEBUG = os.environ.get("HOROVOD_BYZ_DEBUG") == "1"
SANITIZE = os.environ.get("HOROVOD_BYZ_SANITIZE") == "1"
# Undefined behaviour ends the process, so that a test fails; a report alone would be lost among its output.
CHECKED = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
SANITIZERS = [*CHECKED, "-g1"] if SANITIZE else []
OPTIMISED = "-O0" if DEBUG else "-O1" if SANITIZE else "-O2"
WARNINGS = ["-Wall", "-Wextra", "-Wno-psabi", "-Wno-ignored-attributes"]
CXX = ["-std=c++17", OPTIMISED, "-g0", "-ffp-contract=off", *WARNINGS, *SANITIZERS]

# Each instruction set: bytes per vector, sorting networks up to so many rows of float32 and of float64
# (more take longer to compile), median networks likewise (the first also of 16 bits), compiler flags.
# best() in core/drive.cpp tests for these features.
# -ffp-contract=off above: what is to be fused, fused() in core/vec.h fuses, with the same bits at levels that
# have no such instruction.
X86 = {
    "generic": (16, (16, 16), (32, 16), []),
    "v2": (16, (32, 16), (64, 32), ["-msse4.2"]),
    "avx2": (32, (64, 32), (64, 64), ["-mavx2", "-mfma"]),
    "avx512": (
        64,
        (64, 32),
        (64, 64),
        [
            "-mavx512f",
            "-mavx512bw",
            "-mavx512dq",
            "-mavx512vl",
            "-mfma",
            "-mprefer-vector-width=512",
            "-Wno-uninitialized",
            "-Wno-maybe-uninitialized",  # GCC's header leaves a register undefined on purpose
        ],
    ),
}
OTHER = {"generic": (16, (64, 32), (64, 64), [])}
DISPATCH = platform.machine() in ("x86_64", "AMD64")
LEVELS = X86 if DISPATCH else OTHER


def description() -> str:
    """README.md for a package index, which has none of the files that it links to.

    Links within the checkout get the address of HOROVOD_BYZ_SOURCE in front. Without one they become the name
    of the file, which the sdist has, and pictures become their caption.
    """
    address = os.environ.get("HOROVOD_BYZ_SOURCE", "").rstrip("/")

    def outside(match: re.Match[str]) -> str:
        picture, words, target = match.groups()
        if address:
            return f"{picture}[{words}]({posixpath.join(address, target)})"
        return words if picture or target.partition("#")[0] in words else f"{words} ({target})"

    text = (ROOT / "README.md").read_text()
    return re.sub(r"(!?)\[([^\]]*)\]\((?!https?:|#|mailto:)([^)\s]+)\)", outside, text)


def link() -> None:
    """Make the link that lets Cython see kernels/ as horovod_byz.kernels."""
    path = ROOT / "horovod_byz" / "kernels"
    if not path.is_symlink() and not path.exists():
        path.symlink_to(Path("..") / "kernels")


def included(source: Path) -> set[Path]:
    """A file, and every file of ours that it includes."""
    files, waiting = set(), [source]
    while waiting:
        path = waiting.pop()
        if path not in files and path.exists():
            files.add(path)
            names = re.findall(r'^ *# *include "([^"]+)"', path.read_text(), flags=re.M)
            waiting += [Path(os.path.normpath(path.parent / name)) for name in names]
    return files


def fingerprint(command: list[str], source: Path) -> str:
    """What decides an object's bytes: the compiler, its flags, and every file that the source includes."""
    said = subprocess.run([command[0], "--version"], capture_output=True, text=True, check=True).stdout
    digest = hashlib.sha256("\0".join([said, platform.machine(), source.name, *command]).encode())
    for path in sorted(included(source)):
        digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:24]


def keep(made: Path, kept: Path) -> None:
    """Put an object where later builds find it: whole or not at all; the oldest of its kind make room."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial = kept.with_suffix(f".{os.getpid()}.partial")
    shutil.copy(made, partial)
    partial.replace(kept)
    name = kept.name.rpartition("-")[0]
    alike = sorted(kept.parent.glob(f"{name}-*.o"), key=lambda path: path.stat().st_mtime)
    for old in alike[:-8]:
        old.unlink(missing_ok=True)


class BuildKernels(build_ext):
    """Compiles core/ side by side with as many jobs as there are cores, then the modules as usual."""

    def build_extensions(self) -> None:
        self.parallel = self.parallel or os.cpu_count()
        objects = self.compile_core()
        for extension in self.extensions:
            if extension.name.endswith(".dispatch"):
                extension.extra_objects = objects
                extension.depends = [*extension.depends, *objects]
        super().build_extensions()

    def compile_core(self) -> list[str]:
        """One object per instruction set and dtype, and the drivers; those compiled before are used again."""
        # The longest jobs first, so that both cores stay busy to the end.
        jobs = []
        for level, (width, sorts, medians, flags) in reversed(LEVELS.items()):
            for dtype, most, middle in zip(("f32", "f64"), sorts, medians, strict=True):
                name = f"{level}_{dtype}"
                macros = [
                    f"-DHB_ISA={level}",
                    f"-DHB_NAME={name}",
                    f"-DHB_F={dtype.upper()}",
                    f"-DHB_VB={width}",
                    f"-DHB_NETWORKS={most}",
                    f"-DHB_MEDIANS={middle}",
                    *(["-DHB_LARGE"] if dtype == "f32" and width > 16 else []),
                ]
                jobs.append((CORE / "isa.cpp", name, [*macros, *flags]))
        for level, (width, _, medians, flags) in reversed(LEVELS.items()):
            name = f"{level}_f16"
            macros = [
                f"-DHB_ISA={level}",
                f"-DHB_NAME={name}",
                f"-DHB_VB={width}",
                f"-DHB_MEDIANS={medians[0]}",
                *(["-DHB_LARGE"] if width > 16 else []),
            ]
            jobs.append((CORE / "halves.cpp", name, [*macros, *flags]))
        jobs.append((CORE / "drive.cpp", "drive", ["-fopenmp", *(["-DHB_DISPATCH"] if DISPATCH else [])]))

        def compile_one(job: tuple[Path, str, list[str]]) -> str:
            source, name, flags = job
            flags = [*CXX, *flags]
            kept = OBJECTS / f"{name}-{fingerprint([*self.compiler.compiler_so_cxx, *flags], source)}.o"
            if self.force or not kept.exists():
                folder = str(Path(self.build_temp) / name)
                keep(Path(self.compiler.compile([str(source)], folder, extra_postargs=flags)[0]), kept)
            return str(kept)

        with ThreadPoolExecutor(self.parallel) as pool:
            return list(pool.map(compile_one, jobs))


def extensions() -> list[Extension]:
    """The Cython modules; all compiled kernels live in ``dispatch``, the others call through its table."""
    made = [
        Extension(
            f"horovod_byz.kernels.{name}",
            [f"horovod_byz/kernels/{name}.pyx"],
            include_dirs=["kernels"],
            depends=["kernels/core/kernels.h"],
            extra_compile_args=[OPTIMISED, "-g0", *SANITIZERS],
            extra_link_args=[*(["-fopenmp"] if name == "dispatch" else []), *SANITIZERS],
            libraries=["stdc++"] if name == "dispatch" else [],
        )
        for name in MODULES
    ]
    # Not in the modules' first lines: those would win over these, and a debug build could not check.
    checks = {"boundscheck": DEBUG, "wraparound": DEBUG, "initializedcheck": DEBUG}
    return cythonize(
        made,
        build_dir="build/cython-debug" if DEBUG else "build/cython",
        compiler_directives=checks,
        include_path=["."],
        force=DEBUG,
    )


link()
write_faces(ROOT / "kernels", MODULES)
write_networks(ROOT / "kernels")
setup(
    long_description=description(),
    long_description_content_type="text/markdown",
    packages=[*find_packages(include=["horovod_byz", "horovod_byz.*"]), "horovod_byz.kernels"],
    package_dir={"horovod_byz.kernels": "kernels"},
    include_package_data=False,  # else every source that MANIFEST.in names for the sdist goes into the wheel
    package_data={
        "horovod_byz": ["py.typed"],
        "horovod_byz.ledger.report": ["page.html"],
        "horovod_byz.plan": ["constants.json"],
        "horovod_byz.kernels": ["*.pxd", "*.pyi", "README.md", "core/kernels.h"],
    },
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildKernels},
    # An editable install names the checkout in a .pth file: with package_dir the default is a hook, which
    # mypy and editors do not follow.
    options={"editable_wheel": {"mode": "compat"}},
)
