"""Runs the kernels' tests under AddressSanitizer and UndefinedBehaviorSanitizer: `make test-sanitize`.

Builds the package once more, into build/sanitize, with kernels that check every access and every conversion;
the kernels of the checkout stay as they are. Compiled objects are kept in build/sanitize-objects, so that a
second run starts at once. Arguments go to pytest.

Leaks are not looked for: the interpreter keeps memory to its end, and the kernels allocate once per call.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
PACKAGE, OBJECTS = BUILD / "sanitize", BUILD / "sanitize-objects"
LIBRARIES = ("libasan.so", "libubsan.so")
# Reads behind a small block of memory: a run in which this passes would show nothing.
OVERFLOW = """
import ctypes
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
ctypes.memmove(ctypes.create_string_buffer(4096), libc.malloc(16), 64)
"""


def library(name: str) -> Path:
    """A sanitizer's library, which the compiler knows; the interpreter must load it before all others.

    Raises:
        SystemExit: if the compiler has none.
    """
    said = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    path = Path(said.stdout.strip())
    if not path.is_absolute():
        sys.exit(f"make test-sanitize: gcc has no {name}; on Debian or Ubuntu: apt install libgcc-12-dev")
    return path.resolve()


def build() -> None:
    """Builds the package with checked kernels into `PACKAGE`.

    Raises:
        CalledProcessError: if it cannot be built.
    """
    env = {**os.environ, "HOROVOD_BYZ_SANITIZE": "1", "HOROVOD_BYZ_CACHE": str(OBJECTS)}
    env["PYTHONWARNINGS"] = "ignore"
    temporary = BUILD / "sanitize-temp"
    command = [
        sys.executable,
        "setup.py",
        "-q",
        "build",
        f"--build-lib={PACKAGE}",
        f"--build-temp={temporary}",
    ]
    subprocess.run(command, cwd=ROOT, env=env, check=True)


def environment() -> dict[str, str]:
    """Variables under which an interpreter finds the checked package, and ends at the first fault."""
    return {
        **os.environ,
        "LD_PRELOAD": " ".join(str(library(name)) for name in LIBRARIES),
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:strict_init_order=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",  # Python's own allocator would hide what lies behind a small array
        "PYTHONPATH": str(PACKAGE),
        "PYTHONSAFEPATH": "1",  # else the checkout's package comes before it
        "OMP_NUM_THREADS": "2",
    }


def check(env: dict[str, str]) -> None:
    """Shows that the checked package is the one imported, with checked kernels, and that a fault is reported.

    Raises:
        SystemExit: if not.
    """

    def python(code: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True)

    imported = python("from horovod_byz.kernels import dispatch; print(dispatch.__file__)")
    file = Path(imported.stdout.strip() or os.devnull)
    if not file.is_relative_to(PACKAGE) or b"__asan_report_load" not in file.read_bytes():
        sys.exit(f"make test-sanitize: no checked kernels in {PACKAGE}: {file} {imported.stderr}")
    if "heap-buffer-overflow" not in python(OVERFLOW).stderr:
        sys.exit("make test-sanitize: AddressSanitizer did not report a fault made on purpose")


def main(arguments: list[str]) -> int:
    """Builds, checks the build, and runs the tests; the exit code."""
    build()
    env = environment()
    check(env)
    tests = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").glob("test_kernels_*.py"))
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *tests, *arguments]
    return subprocess.run(command, env=env, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
