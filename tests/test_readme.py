"""What README.md shows runs as it stands there, in one process."""

import pytest
from typer.testing import CliRunner

from horovod_byz.cli.main import app
from horovod_byz.training import config as configs
from snippets import PAGES, snippets

pytestmark = pytest.mark.source


def blocks(language):
    return [block for page in PAGES if page.name == "README.md" for block in snippets(page, language)]


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_a_snippet_runs_alone(block):
    block.run({"__name__": "readme"})


def test_the_snippet_of_redundancy_gives_replicas_equal_batches():
    (block,) = (block for block in blocks("python") if "Redundancy" in block.text)
    scope = {"__name__": "readme"}
    block.run(scope)
    scope["rule"].check(15)
    redundancy, train = scope["redundancy"], scope["train"]
    first, second, third = redundancy.groups_of(15)[redundancy.group_of(0, 15)]
    drawn = [list(redundancy.sampler(train, seed=0, worker=k, workers=15)) for k in (first, second, third)]
    assert list(scope["sampler"]) == drawn[0] == drawn[1] == drawn[2]
    assert len(next(iter(scope["loader"]))[0]) == 96


def test_the_commands_are_commands():
    lines = "\n".join(block.text for block in blocks("bash")).replace("\\\n", " ").splitlines()
    shown = [words for line in lines if "horovod-byz" in (words := line.partition("#")[0].split())]
    commands = [words[words.index("horovod-byz") + 1 :] for words in shown if "pip" not in words]
    assert {command[0] for command in commands} == {"train", "report", "theory", "plan", "attack"}
    runner = CliRunner()
    for command in commands:
        if command[0] in ("theory", "plan", "attack"):
            assert runner.invoke(app, command).exit_code == 0
        options = [word for word in command if word.startswith("--")]
        text = runner.invoke(app, [*command[: 2 if command[0] == "theory" else 1], "--help"]).output
        assert all(option in text for option in options), command
    settings = dict(zip(commands[0][1::2], commands[0][2::2], strict=True))
    configs.make(
        {
            "data": settings["--data"],
            "model": settings["--model"],
            "workers": int(settings["--workers"]),
            "byzantine": int(settings["--byzantine"]),
            "attack": settings["--attack"],
            "rule": settings["--rule"],
            "seed": int(settings["--seed"]),
            "steps": int(settings["--steps"]),
        }
    )
