"""What README.md shows runs as it stands there, in one process."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from horovod_byz.cli.main import app
from horovod_byz.training import config as configs

pytestmark = pytest.mark.source

_PAGE = Path(__file__).parents[1] / "README.md"
README = _PAGE.read_text() if _PAGE.exists() else ""  # away from a checkout these tests are left out


def blocks(language):
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return [content for name, content in fenced if name == language]


@pytest.mark.parametrize("code", blocks("python"))
def test_a_snippet_runs(code, monkeypatch):
    scope = {"__name__": "readme"}
    exec(compile(code, "README.md", "exec", dont_inherit=True), scope)


def test_the_snippet_of_redundancy_gives_replicas_equal_batches():
    (code,) = (code for code in blocks("python") if "Redundancy" in code)
    scope = {"__name__": "readme"}
    exec(compile(code, "README.md", "exec", dont_inherit=True), scope)
    scope["rule"].check(15)
    redundancy, train = scope["redundancy"], scope["train"]
    first, second, third = redundancy.groups_of(15)[redundancy.group_of(0, 15)]
    drawn = [list(redundancy.sampler(train, seed=0, worker=k, workers=15)) for k in (first, second, third)]
    assert list(scope["sampler"]) == drawn[0] == drawn[1] == drawn[2]
    assert len(next(iter(scope["loader"]))[0]) == 96


def test_the_commands_are_commands():
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    shown = [words for line in lines if "horovod-byz" in (words := line.partition("#")[0].split())]
    commands = [words[words.index("horovod-byz") + 1 :] for words in shown if "pip" not in words]
    assert {command[0] for command in commands} == {"train", "report", "theory"}
    runner = CliRunner()
    for command in commands:
        if command[0] == "theory":
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
