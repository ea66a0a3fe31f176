"""A launch runs many groups of checks; a failure still names the check, and no check hides another."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

CHECKS = pathlib.Path(__file__).parent / "checks"
HOROVOD = "def init(): pass\ndef rank(): return 0\n"
GROUP = """
import os

def check_first(): return {"value": 1}
def check_raises(): raise ArithmeticError("of this check")
def check_is_no_json(): return {1}
def check_ends(): os._exit(0)
def check_never(): return 2
"""


@pytest.fixture
def kept(tmp_path):
    """What a rank leaves that ended in a check, here without Horovod."""
    (tmp_path / "horovod").mkdir()
    (tmp_path / "horovod" / "torch.py").write_text(HOROVOD)
    (tmp_path / "broken.py").write_text(GROUP)
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "RANK_RESULTS": str(tmp_path)}
    subprocess.run([sys.executable, CHECKS / "run.py", "broken"], env=env, check=True, timeout=120)
    return json.loads((tmp_path / "0.json").read_text())


@pytest.fixture
def read(results, monkeypatch):
    """Reads a check of a job as if its ranks had left `checks`."""
    names = results.__globals__

    def read(check, *checks):
        monkeypatch.setitem(names, "launch", lambda *job: names["Launch"](list(checks), "what was printed"))
        return results(check, len(checks), "gloo", "modes")

    return read


def test_a_rank_that_ends_keeps_the_checks_before(kept):
    assert kept.pop("check_first") == {"value": 1}
    assert 'ArithmeticError("of this check")' in kept.pop("check_raises")["error"]
    assert "TypeError" in kept.pop("check_is_no_json")["error"]
    assert kept == {}


@pytest.mark.horovod
def test_a_failure_names_the_check_and_the_rank(read):
    assert read("check_a", {"check_a": 1}, {"check_a": 2, "check_b": 0}) == [1, 2]
    with pytest.raises(pytest.fail.Exception, match=r"rank 0 did not end check_b:\nwhat was printed"):
        read("check_b", {"check_a": 1}, {"check_a": 2, "check_b": 0})
    with pytest.raises(pytest.fail.Exception, match=r"rank 1, check_a:\nTraceback"):
        read("check_a", {"check_a": 1}, {"check_a": {"error": "Traceback"}})


def test_no_two_checks_of_a_launch_share_a_name(results):
    for job, lines in results.__globals__["LAUNCHES"].items():
        assert len({group for line in lines for group in line.split()}) == len(" ".join(lines).split()), job
        for line in lines:
            texts = [(CHECKS / f"{group}.py").read_text() for group in line.split()]
            checks = re.findall(r"^def (check_\w+)", "\n".join(texts), re.MULTILINE)
            assert len(set(checks)) == len(checks), line
