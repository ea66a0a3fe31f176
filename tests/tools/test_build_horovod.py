"""The Horovod build: what the cache key depends on, and how it restarts after a failure."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.source
SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "build_horovod.py"
WHEEL = "horovod-0.28.1-cp311-cp311-linux_x86_64.whl"


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """The script as a module, with its cache in a temporary folder."""
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


def test_patching_mends_each_file_once(tool, tmp_path):
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


def test_an_interrupted_build_leaves_nothing_that_looks_finished(tool, monkeypatch):
    def interrupted(work: Path, log: Path) -> Path:
        write_wheel(work / "built")
        raise KeyboardInterrupt

    monkeypatch.setattr(tool, "compile_in", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tool.main()
    assert list(tool.cache_root().iterdir()) == []


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
