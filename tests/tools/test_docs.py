"""The site that `make docs` builds has all pages and all public names; the build itself is not done here."""

from __future__ import annotations

import importlib.util
import pkgutil
import re
import tomllib
from pathlib import Path

import pytest

import horovod_byz as hb

yaml = pytest.importorskip("yaml")
pytestmark = pytest.mark.source
ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "tools" / "docs_hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def configuration() -> dict:
    return yaml.safe_load((ROOT / "mkdocs.yml").read_text())


def pages_of(entry) -> list[str]:
    """The pages under an entry of the navigation."""
    if isinstance(entry, str):
        return [entry]
    inside = entry.values() if isinstance(entry, dict) else entry
    return [page for part in inside for page in pages_of(part)]


def documented() -> list[str]:
    texts = [page.read_text() for page in REFERENCE.glob("*.md")]
    return [name for text in texts for name in re.findall("^::: (.*)$", text, re.MULTILINE)]


def test_every_page_is_in_the_navigation_once():
    there = [file.relative_to(ROOT / "docs").as_posix() for file in (ROOT / "docs").rglob("*.md")]
    assert sorted(pages_of(configuration()["nav"])) == sorted([*there, "index.md"])


def test_warnings_are_errors():
    assert configuration()["strict"] is True
    # With --quiet MkDocs would hide them from --strict too.
    assert "mkdocs build --strict\n" in (ROOT / "Makefile").read_text()


def test_every_public_name_is_in_the_reference():
    assert {f"horovod_byz.{name}" for name in hb.__all__} <= set(documented())


def test_every_entry_of_the_reference_exists_once():
    names = documented()
    assert len(names) == len(set(names)) > 40
    for name in names:
        pkgutil.resolve_name(name)  # raises where it does not exist; imports a module that is one


def test_links_within_the_checkout_lead_somewhere(hooks):
    pages = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "kernels/README.md")]
    broken = []
    for page in [*pages, *(ROOT / "docs").rglob("*.md")]:
        source = page.relative_to(ROOT).as_posix()
        targets = [hooks.place(source, match[3]) for match in hooks.LINK.finditer(page.read_text())]
        broken += [f"{source}: {target}" for target in targets if not (ROOT / target).exists()]
    assert broken == []


@pytest.mark.parametrize(
    ("text", "source", "page", "there"),
    [
        ("[a](docs/b.md#c)", "README.md", "index.md", "[a](b.md#c)"),
        ("![a](docs/images/b.png)", "README.md", "index.md", "![a](images/b.png)"),
        ("![a](../results/b.png)", "docs/c.md", "c.md", "![a](results/b.png)"),
        ("[a](../tests/b.py)", "docs/c.md", "c.md", "a (`tests/b.py`)"),
        ("[tests/b.py](../tests/b.py)", "docs/c.md", "c.md", "tests/b.py"),
        ("[a](../b.md) [c](../../README.md)", "docs/d/e.md", "d/e.md", "[a](../b.md) [c](../index.md)"),
        ("[a](https://b.c) [d](#e)", "docs/c.md", "c.md", "[a](https://b.c) [d](#e)"),
    ],
)
def test_links_of_the_checkout_become_links_of_the_site(hooks, text, source, page, there):
    assert hooks.relinked(text, source, page) == there


def test_the_generator_is_pinned_and_kept_out_of_the_set_up():
    lines = (ROOT / "requirements" / "docs.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==\d[\w.]*", line) for line in pins)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = {re.match(r"[\w-]+", requirement)[0] for requirement in extras["docs"]}
    assert asked <= {line.partition("==")[0] for line in pins}
    recipe = re.search(r"\$\(STAMPS\)/requirements:.*?\n\n", (ROOT / "Makefile").read_text(), re.DOTALL)[0]
    assert "-r requirements/docs.txt" not in recipe


def test_every_name_that_the_page_on_peers_calls_exists():
    text = (ROOT / "docs" / "peers.md").read_text()
    called = {name for code in re.findall(r"`([^`]+)`", text) for name in re.findall(r"\b([A-Z]\w+)\(", code)}
    assert len(called) > 30
    assert {name for name in called if not hasattr(hb, name) and not hasattr(hb.attacks, name)} == set()
