"""The Horovod build: what the cache key depends on, and how it restarts after a failure."""

from __future__ import annotations

import importlib.util
import shutil
import signal
import sys
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import leftovers

pytestmark = pytest.mark.source
SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "build_horovod.py"
WHEEL = "horovod-0.28.1-cp311-cp311-linux_x86_64.whl"


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """The script as a module, with its cache in a temporary folder."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("build_horovod", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("HOROVOD_BYZ_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HOROVOD_GPU_OPERATIONS", raising=False)
    monkeypatch.setattr(module, "mpi_version", lambda: "openmpi-5.0.11")
    return module


def write_wheel(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / WHEEL).write_bytes(b"")
    return folder


def test_the_key_names_everything_the_library_depends_on(tool, monkeypatch):
    keys = {tool.cache_key()}
    assert {"horovod-0.28.1", f"cp3{sys.version_info.minor}", "openmpi-5.0.11"} <= set(
        keys.copy().pop().split("_")
    )
    monkeypatch.setenv("HOROVOD_GPU_OPERATIONS", "NCCL")
    keys.add(tool.cache_key())
    monkeypatch.setattr(tool, "mpi_version", lambda: "openmpi-5.0.12")
    keys.add(tool.cache_key())
    monkeypatch.setattr(tool.metadata, "version", lambda name: "2.14.0")
    keys.add(tool.cache_key())
    assert len(keys) == 4


def test_the_cache_is_where_the_variable_says(tool, tmp_path, monkeypatch):
    assert tool.cache_root() == tmp_path / "cache" / "wheels"
    monkeypatch.delenv("HOROVOD_BYZ_CACHE")
    assert tool.cache_root() == Path.home() / ".cache" / "horovod_byz" / "wheels"


def test_patching_changes_each_file_once(tool, tmp_path):
    for name, (old, _) in tool.PATCHES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"before\n{old}\nafter\n")
    tool.patch(tmp_path)
    for name, (_, new) in tool.PATCHES.items():
        assert (tmp_path / name).read_text() == f"before\n{new}\nafter\n"
    (tmp_path / "CMakeLists.txt").write_text("set(CMAKE_CXX_STANDARD 17)\n")
    with pytest.raises(tool.BuildError, match=r"CMakeLists.txt should hold"):
        tool.patch(tmp_path)


def test_a_failing_step_shows_the_end_of_its_log(tool, tmp_path):
    log = tmp_path / "build.log"
    with pytest.raises(tool.BuildError, match=r"boom\ncompile failed \(exit code 3\); the whole log: "):
        tool.run("compile", ["bash", "-c", "echo boom >&2; exit 3"], log)


def test_a_cached_wheel_is_installed_without_a_build(tool, monkeypatch):
    installed = []
    write_wheel(tool.cache_root() / tool.cache_key())
    monkeypatch.setattr(tool, "install", lambda wheel: installed.append(wheel.name) or True)
    monkeypatch.setattr(tool, "build", lambda entry: pytest.fail("built although the cache had it"))
    assert tool.main() == 0
    assert installed == [WHEEL]


def test_a_cached_library_that_does_not_load_is_built_again(tool, monkeypatch):
    loads = iter([False, True])
    entry = write_wheel(tool.cache_root() / tool.cache_key())
    monkeypatch.setattr(tool, "install", lambda wheel: next(loads))
    monkeypatch.setattr(tool, "compile_in", lambda work, log: write_wheel(work / "wheel"))
    assert tool.main() == 0
    assert tool.cached_wheel(entry).name == WHEEL
    assert [path.name for path in tool.cache_root().iterdir()] == [entry.name]


def test_an_interrupted_build_goes_on_where_it_stopped(tool, monkeypatch, capsys):
    """0.1.0: its folder had a random name and was removed: every attempt began with the first file."""
    attempts = []

    def interrupted(work: Path, log: Path) -> Path:
        attempts.append(work)
        (work / "kept").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(tool, "compile_in", interrupted)
    assert [tool.main(), tool.main()] == [130, 130]
    assert attempts[0] == attempts[1]
    assert "goes on from here" in capsys.readouterr().err
    entry = tool.cache_root() / tool.cache_key()
    assert tool.cached_wheel(entry) is None  # nothing looks finished

    def finished(work: Path, log: Path) -> Path:
        assert (work / "kept").exists()
        return write_wheel(work / "wheel")

    monkeypatch.setattr(tool, "compile_in", finished)
    monkeypatch.setattr(tool, "install", lambda wheel: True)
    assert tool.main() == 0
    assert list(tool.cache_root().iterdir()) == [entry]


def test_a_failed_build_keeps_its_folder_and_says_so(tool, monkeypatch, tmp_path):
    def fails(work: Path, log: Path) -> Path:
        tool.run("compile", ["false"], log)

    monkeypatch.setattr(tool, "compile_in", fails)
    with pytest.raises(tool.BuildError, match="the next attempt goes on in that folder; remove it"):
        tool.build(tool.cache_root() / tool.cache_key())
    assert len(list(tool.cache_root().glob(".building-*/build.log"))) == 1


def test_folders_of_other_environments_that_are_no_longer_needed_are_removed(tool, monkeypatch):
    entry = tool.cache_root() / tool.cache_key()
    monkeypatch.setattr(tool, "compile_in", lambda work, log: write_wheel(work / "wheel"))
    needless, held = (entry.with_name(f".building-{entry.name}_{name}") for name in ("0", "1"))
    needless.mkdir(parents=True)
    with tool.alone(held):
        tool.build(entry)
    assert set(entry.parent.iterdir()) == {entry, held}


def test_the_second_of_two_builds_waits_and_takes_the_wheel_of_the_first(tool, monkeypatch, capsys):
    entry = tool.cache_root() / tool.cache_key()
    here, there = threading.Event(), threading.Event()

    def first(work: Path, log: Path) -> Path:
        here.set()
        assert there.wait(60)
        return write_wheel(work / "wheel")

    def show(text: str, **options: object) -> None:
        if "waiting for it" in text:
            there.set()

    monkeypatch.setattr(tool, "compile_in", first)
    monkeypatch.setattr(sys.modules["build_steps"], "print", show, raising=False)
    with ThreadPoolExecutor(2) as pool:
        builds = [pool.submit(tool.build, entry)]
        assert here.wait(60)
        builds.append(pool.submit(tool.build, entry))
        assert {build.result(60) for build in builds} == {entry / WHEEL}
    assert list(tool.cache_root().iterdir()) == [entry]


def test_the_source_is_fetched_once_and_an_unfinished_one_again(tool, monkeypatch, tmp_path):
    fetched = []

    def download(step: str, command: list[str], log: Path) -> None:
        fetched.append(step)
        source = tmp_path / "horovod-0.28.1"
        source.mkdir()
        (source / "setup.py").touch()
        with tarfile.open(tmp_path / "horovod-0.28.1.tar.gz", "w:gz") as archive:
            archive.add(source, source.name)
        shutil.rmtree(source)

    monkeypatch.setattr(tool, "run", download)
    monkeypatch.setattr(tool, "patch", lambda source: None)
    (tmp_path / "horovod-0.28.1").mkdir()
    (tmp_path / "horovod-0.28.1" / "half").touch()
    log = tmp_path / "build.log"
    assert tool.fetch(tmp_path, log) == tool.fetch(tmp_path, log)
    assert [path.name for path in tool.fetch(tmp_path, log).iterdir()] == ["setup.py"]
    assert fetched == ["download"]


def test_the_compilers_of_a_stopped_build_end_with_it(tool, tmp_path):
    command = ["bash", "-c", "sleep 771 & sleep 771"]
    ctrl_c = threading.Timer(1, signal.raise_signal, [signal.SIGINT])
    ctrl_c.start()
    with pytest.raises(KeyboardInterrupt):
        tool.run("compile", command, tmp_path / "build.log", tree=tmp_path)
    assert not [pid for pid in leftovers.started() if "sleep 771" in leftovers.command(pid)]


def test_compilers_that_outlive_a_killed_build_hold_its_folder(tool, tmp_path):
    with tool.alone(tmp_path / "work"):
        tool.run("compile", ["bash", "-c", "sleep 2 & exit"], tmp_path / "work" / "build.log")
    assert not sys.modules["build_steps"].free(tmp_path / "work")
    with tool.alone(tmp_path / "work"):  # waits
        assert not [pid for pid in leftovers.started() if "sleep 2" in leftovers.command(pid)]


def test_jobs_fit_the_cores_and_the_memory(tool, monkeypatch):
    monkeypatch.setattr(tool.os, "sched_getaffinity", lambda pid: set(range(8)))
    for kib, jobs in {64 << 20: 8, 9 << 20: 4, 1 << 20: 1}.items():
        monkeypatch.setattr(
            tool.Path, "read_text", lambda path, kib=kib: f"MemFree: 1 kB\nMemAvailable: {kib} kB\n"
        )
        assert tool.jobs() == jobs


def test_of_two_builds_at_once_the_first_stays(tool, monkeypatch):
    entry = tool.cache_root() / tool.cache_key()

    def overtaken(work: Path, log: Path) -> Path:
        write_wheel(entry)
        (entry / "first").touch()
        return write_wheel(work / "wheel")

    monkeypatch.setattr(tool, "compile_in", overtaken)
    assert tool.build(entry).parent == entry
    assert (entry / "first").exists()


def test_a_failed_build_is_an_exit_code_and_a_message(tool, monkeypatch, capsys):
    def fails(work: Path, log: Path) -> Path:
        raise tool.BuildError("no compiler")

    monkeypatch.setattr(tool, "compile_in", fails)
    assert tool.main() == 1
    assert "build_horovod: no compiler" in capsys.readouterr().err
