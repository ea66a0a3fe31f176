"""The fenced blocks of README.md and docs/, and the shell commands in them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Away from a checkout there are none; the tests that read them are marked `source`.
PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if page.exists()]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Snippet:
    """A fenced block: its page, the line of its fence (from 1), its language and its text."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    def run(self, scope: dict[str, object]) -> None:
        """Executes Python as it stands there; a traceback names the page and the line."""
        code = "\n" * self.line + self.text
        exec(compile(code, str(self.page), "exec", dont_inherit=True), scope)


def snippets(page: Path, language: str | None = None) -> list[Snippet]:
    """The blocks of a page, of one language or all."""
    text = page.read_text()
    blocks = [
        Snippet(page, text.count("\n", 0, match.start()) + 1, *match.groups())
        for match in _FENCE.finditer(text)
    ]
    return [block for block in blocks if language in (None, block.language)]


def commands(text: str) -> list[list[str]]:
    """The words of each command of a shell block, without comments; a backslash continues a line."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def inline(page: Path) -> list[list[str]]:
    """The words of each `make ...`, `horovod-byz ...` and `launch/...` that a page has in its text."""
    prose = _FENCE.sub("", page.read_text())
    spans = re.findall(r"`((?:make|horovod-byz|launch/\w+\.sh) [^`]+)`", prose)
    return [shlex.split(span, comments=True) for span in spans]
