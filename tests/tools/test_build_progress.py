"""What a build by CMake's Makefiles shows while it runs, and what of an interrupted one is used again."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.source
SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "build_progress.py"
LISTS = """
cmake_minimum_required(VERSION 3.13)
project(little CXX)
add_subdirectory(part)
add_library(whole SHARED a.cc b.cc)
"""


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("build_progress", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path):
    """A project of three files in two folders, configured."""
    if shutil.which("cmake") is None or shutil.which("g++") is None:
        pytest.skip("cmake and g++ are not installed")
    source, build = tmp_path / "source", tmp_path / "source" / "build"
    (source / "part").mkdir(parents=True)
    for name in ("a", "b", "part/c"):
        (source / f"{name}.cc").write_text(f"int {name[-1]}() {{ return 1; }}\n")
    (source / "CMakeLists.txt").write_text(LISTS)
    (source / "part" / "CMakeLists.txt").write_text("add_library(part STATIC c.cc)\n")
    command = ["cmake", "-G", "Unix Makefiles", "-S", source, "-B", build]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return build


def make(tree, log):
    with log.open("w") as out:
        subprocess.run(["make"], cwd=tree, stdout=out, stderr=out, check=True, timeout=60)
    return log.read_text()


def test_a_build_says_how_many_files_there_are_and_goes_on_after_a_kill(tool, tree, tmp_path):
    log = tmp_path / "log"
    log.touch()
    progress = tool.Progress(tree, log)
    assert progress.text() == "0 of 3 files compiled; 0 s so far"
    make(tree, log)
    assert progress.text().startswith("3 of 3 files compiled, now ")
    assert {path.name for path in tool.objects(tree)} == {"a.cc.o", "b.cc.o", "c.cc.o"}
    assert tool.drop_partial(tree) == 3
    # A killed compiler leaves a part of its file; make itself would take that for finished.
    (partial,) = tree.rglob("b.cc.o")
    partial.write_bytes(partial.read_bytes()[:-100])
    assert tool.drop_partial(tree) == 2
    assert tool.Progress(tree, log).text().startswith("2 of 3 files")
    again = make(tree, log)
    assert [name for name in ("a.cc.o", "b.cc.o", "c.cc.o") if name in again] == ["b.cc.o"]


@pytest.mark.parametrize("content", [b"", b"\x7fELF\x02", b"\0" * 64, b"x" * 500])
def test_a_file_that_is_no_object_file_is_compiled_again(tool, tmp_path, content):
    (tmp_path / "a.o").write_bytes(content)
    assert tool.drop_partial(tmp_path) == 0
    assert not (tmp_path / "a.o").exists()


def test_the_time_left_follows_from_what_this_run_compiled(tool, tmp_path, monkeypatch):
    clock = iter([100.0, 100.0, 160.0])
    monkeypatch.setattr(tool.time, "monotonic", lambda: next(clock))
    (tmp_path / "build.make").write_text("".join(f"{i}.o: {i}.cc\n" for i in range(10)))
    log = tmp_path / "log"
    log.write_text("[ 10%] Building CXX object torch/CMakeFiles/x.dir/adapter_v2.cc.o\n")
    (tmp_path / "0.o").touch()
    progress = tool.Progress(tmp_path, log)
    progress.text()
    for i in range(1, 4):
        (tmp_path / f"{i}.o").touch()
    assert progress.text() == "4 of 10 files compiled, now adapter_v2.cc; 60 s so far, about 2 min left"


def test_where_no_terminal_is_there_are_few_lines(tool, tmp_path, monkeypatch, capsys):
    now = [1000.0]
    monkeypatch.setattr(tool.time, "monotonic", lambda: now[0])
    log = tmp_path / "log"
    log.touch()
    progress = tool.Progress(tmp_path, log)
    for _ in range(40):
        now[0] += 1
        progress.tell()
    progress.tell(last=True)
    assert capsys.readouterr().out == "Horovod: configuring\n"
