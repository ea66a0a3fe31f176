"""A program that was started is followed to its end, and nobody waits for what it left behind."""

from __future__ import annotations

import subprocess

import pytest

from horovod_byz.training import following
from horovod_byz.training.following import lines, stopping


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(following, "_LINGER", 0.5)
    monkeypatch.setattr(following, "_STOP", 0.5)


def start(script):
    return subprocess.Popen(["bash", "-c", script], stdout=subprocess.PIPE, text=True)


def test_lines_come_whole_and_the_last_needs_no_end():
    with start(
        "printf 'a\\nb'; sleep 0.7; printf 'c\\n\\303'; sleep 0.7; printf '\\251\\n\\nlast'"
    ) as process:
        assert list(lines(process)) == ["a\n", "bc\n", "é\n", "\n", "last"]


def test_what_outlives_the_program_is_read_for_a_while_only():
    """0.1.0: a rank that outlived its launcher kept `horovod-byz train --ranks` reading for ever."""
    process = start("(sleep 0.8; echo late; exec sleep 661) & echo early; exit 3")
    assert list(lines(process)) == ["early\n", "late\n"]
    assert process.wait(timeout=10) == 3
    process.stdout.close()


@pytest.mark.parametrize("script", ["echo begun; exec sleep 662", "trap '' TERM; echo deaf; sleep 663"])
def test_an_error_while_following_ends_the_program(script):
    """0.1.0: `Popen` waited for a program that nobody followed any more."""
    process = start(script)

    def fails():
        with process, stopping(process):
            process.stdout.readline()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert process.returncode < 0
