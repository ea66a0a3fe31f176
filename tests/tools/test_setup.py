"""The set-up files agree with each other: pins, targets, and what the checks call."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.source
ROOT = Path(__file__).resolve().parents[2]
TARGETS = ("setup", "test", "lint", "demo", "doctor", "bench", "wheel-test", "clean")


def pins() -> dict[str, str]:
    lines = (ROOT / "requirements" / "constraints.txt").read_text().splitlines()
    parts = [line.partition("==") for line in lines if line and not line.startswith("#")]
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, _, version in parts}


def wanted(name: str) -> list[str]:
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith(("#", "-c"))]


@pytest.mark.parametrize("name", ["build.txt", "run.txt", "test.txt", "lint.txt", "lint-more.txt"])
def test_whatever_is_wanted_has_a_pin(name):
    for requirement in wanted(name):
        assert re.sub(r"[-_.]+", "-", requirement).lower() in pins(), f"{requirement} has no pin"


def test_every_pin_is_exact():
    assert all(re.fullmatch(r"\d[\w.]*", version) for version in pins().values())


def test_torch_is_never_asked_for_without_its_version():
    """A bare `torch` would let pip replace the build that was installed first."""
    assert wanted("torch.txt") == [f"torch=={pins()['torch']}"]
    others = [line for file in ROOT.glob("requirements/*.txt") for line in wanted(file.name)]
    assert "torch" not in others
    assert all("==" in line for line in others if line.startswith("torch"))


def test_the_build_system_and_the_requirements_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for requirement in project["build-system"]["requires"]:
        name, _, version = requirement.partition("==")
        assert pins()[name.lower()] == version


def test_the_run_requirements_cover_the_packages_dependencies():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *extras["train"], *extras["report"]]
    names = {re.split(r"[<>=]", dependency)[0] for dependency in asked}
    assert names - {"torch"} <= set(wanted("run.txt"))


def test_make_without_a_target_explains_every_target():
    done = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, check=True)
    for target in TARGETS:
        assert re.search(rf"make {target} +\S", done.stdout), f"make help does not explain {target}"


def test_the_ci_script_is_executable_and_runs_the_three_checks():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "for target in test lint wheel-test;" in script.read_text()


def test_make_setup_makes_torchvision_importable():
    lines = (ROOT / "Makefile").read_text()
    assert "$(BIN)/python tools/install_torchvision_hook.py" in lines
    assert re.search(r"^\$\(STAMPS\)/package:.*\$\(STAMPS\)/torchvision", lines, re.MULTILINE)


def test_make_setup_names_the_missing_tool(tmp_path):
    """On a host without Python 3.11 the first message is what to install."""
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    command = ["make", "-C", str(tmp_path), "setup", "PYTHON=no-such-python"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "no-such-python is not installed" in done.stderr
    assert not (tmp_path / ".venv" / ".stamps" / "venv").exists()
