"""The files around the code agree with it: the public CI, the hooks before a commit, what a release holds."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")
pytestmark = pytest.mark.source
ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text() if (ROOT / "Makefile").exists() else ""


def tool(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def classified() -> list[str]:
    """The versions of Python that the package says it works on."""
    lines = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    return [line.rpartition(" ")[2] for line in lines if re.search(r":: 3\.\d+$", line)]


def test_the_public_ci_has_the_targets_of_ours_on_each_python():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == classified()
    called = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    targets = {match[1] for line in called if (match := re.match(r"make ([\w-]+)", line))}
    assert {"test", "lint", "wheel-test", "docs", "wheels", "image"} <= targets
    assert all(re.search(rf"^{target}:", MAKEFILE, re.MULTILINE) for target in targets)


def test_wheels_are_for_the_pythons_of_the_classifiers():
    assert list(tool("build_wheels").VERSIONS) == classified()


def test_interpreters_are_looked_for():
    wheels = tool("build_wheels")
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    python = wheels.interpreter(here)
    assert python is not None
    done = subprocess.run(
        [python, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True
    )
    assert done.stdout.strip() == str(tuple(sys.version_info[:2]))
    assert wheels.interpreter("3.99") is None


def test_the_hooks_before_a_commit_are_programs_of_make_lint():
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    programs = {hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in local["hooks"]}
    recipe = re.search(r"^lint:.*?\n\n", MAKEFILE, re.DOTALL | re.MULTILINE)[0]
    assert programs == set(re.findall(r"(?:\$\(BIN\)/|\$\(call optional,)([\w-]+)", recipe))


def test_a_linter_that_is_not_installed_is_reported_and_fails_nothing():
    probe = "probe: ; @$(call optional,no-such-linter,launch)"
    done = subprocess.run(
        ["make", "-s", "-C", ROOT, "--eval", probe, "probe"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "lint: no-such-linter is not installed, so it did not check launch\n"


def test_no_file_has_a_license_header():
    """All or none: none, since LICENSE holds for all."""
    listed = subprocess.run(
        ["git", "-C", ROOT, "grep", "-lI", "SPDX-" + "License"], capture_output=True, text=True
    )
    assert listed.stdout == ""


def test_the_citation_is_complete():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["license"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"]
    assert len(citation["references"]) == 4


@pytest.mark.parametrize("address", ["", "https://example.org/blob/v1/"])
def test_the_description_of_the_package_has_no_link_into_the_checkout(monkeypatch, address):
    """0.1.0: a package index showed README.md, whose links and picture led nowhere there."""
    source = (ROOT / "setup.py").read_text()
    code = source[: source.index("def link() -> None:")]
    pytest.importorskip("Cython")  # setup.py imports it
    scope = {"__file__": str(ROOT / "setup.py"), "__name__": "setup"}
    monkeypatch.setenv("HOROVOD_BYZ_SOURCE", address)
    exec(compile(code, "setup.py", "exec"), scope)
    targets = re.findall(r"\]\(([^)]*)\)", scope["description"]())
    assert all(target.startswith(("https:", "#")) for target in targets), targets
    shown = "https://example.org/blob/v1/docs/horovod.md" if address else "(docs/horovod.md)"
    assert ("[docs/horovod.md](" + shown + ")" if address else "docs/horovod.md") in scope["description"]()


def test_the_sdist_takes_docs_and_changelog():
    lines = (ROOT / "MANIFEST.in").read_text()
    for name in ("CHANGELOG.md", "CITATION.cff", "SECURITY.md", "docs *.md"):
        assert name in lines
