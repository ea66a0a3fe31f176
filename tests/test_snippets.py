"""What README.md and docs/ show works as it stands there.

Python of these pages runs here, one page in one scope; `IN_A_JOB` names the pages whose Python needs ranks,
which tests/ranks/checks/recipes.py runs. Shell commands are not run: what they name must exist.
"""

from __future__ import annotations

import tomllib

import pytest

import shell_commands
from snippets import PAGES, ROOT, commands, inline, snippets

pytestmark = pytest.mark.source

LANGUAGES = {"bash", "cython", "diff", "meson", "python", "text", "toml"}
IN_A_JOB = {"horovod.md", "redundancy.md"}
PAGE = ROOT / "docs" / "reproduction.md"
ALONE = {"README.md"}  # each block runs alone in tests/test_readme.py
# Equal to a file that is built and tested (tests/test_kernels_api.py).
BUILT = "from Cython.Build import cythonize"
HERE = [page for page in PAGES if page.name not in IN_A_JOB | ALONE and snippets(page, "python")]


def test_there_are_pages_and_each_kind_of_snippet():
    assert len(PAGES) >= 11
    shown = {block.language for page in PAGES for block in snippets(page)}
    assert shown == LANGUAGES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_states_its_language(page):
    """A block without one would be checked by nobody."""
    assert page.read_text().count("\n```") == 2 * len(snippets(page))
    assert [str(block) for block in snippets(page) if block.language not in LANGUAGES] == []


@pytest.mark.parametrize("page", HERE, ids=lambda page: page.name)
def test_python_runs(page):
    scope: dict[str, object] = {"__name__": "documented"}
    for block in snippets(page, "python"):
        if not block.text.startswith(BUILT):
            block.run(scope)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_name_what_exists(page):
    shown = [words for block in snippets(page, "bash") for words in commands(block.text)]
    for words in shown + inline(page):
        try:
            shell_commands.check(words)
        except AssertionError as error:
            pytest.fail(f"{page.name}: {' '.join(words)}: {error}")


@pytest.mark.parametrize(
    "command",
    [
        "make no-such-target",
        "make test NO_SUCH=1",
        "horovod-byz no-such-command",
        "horovod-byz train --no-such-option",
        "horovod-byz theory detox --no-such-option 1",
        "launch/no-such.sh",
        "launch/ec2.sh no-such-verb",
        "python tools/no_such.py",
        "python -m horovod_byz.no_such",
        'pip install "horovod-byz[no-such]"',
        "docker build -t horovod-byz --build-arg NO_SUCH=1 .",
        "kubectl apply -f launch/kubernetes/no-such.yaml",
        "no-such-program",
    ],
)
def test_a_command_that_names_what_does_not_exist_is_an_error(command):
    with pytest.raises(AssertionError, match=r"no|cannot"):
        shell_commands.check(*commands(command))


def test_the_claims_on_the_page_on_reproduction_are_valid():
    from horovod_byz.reproduction.claims import Claim

    (block,) = (block for block in snippets(PAGE, "toml") if "[[claims]]" in block.text)
    for claim in tomllib.loads(block.text)["claims"]:
        Claim.model_validate(claim)


def test_the_experiment_of_ones_own_on_that_page_can_be_read(tmp_path):
    from horovod_byz.reproduction import own
    from horovod_byz.reproduction.catalogue import Catalogue

    grid, artefact = (block.text for block in snippets(PAGE, "toml") if "[[claims]]" not in block.text)
    (tmp_path / "grids").mkdir()
    (tmp_path / "grids" / "rules.toml").write_text(grid)
    (tmp_path / "rules.toml").write_text(artefact)
    catalogue = Catalogue(tmp_path)
    own.check(catalogue.artefact("rules"), catalogue, {})
    assert len(catalogue.cells(catalogue.artefact("rules"))) == 48
