"""Hooks of MkDocs for `make docs`: README.md becomes the first page, and links lead to pages of the site.

The pages link to files of the checkout that are no pages (results, tests). Pictures among them are taken into
the site; of other links the name of the file stays, since a site has no such file.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

CHECKOUT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)]*)?\)")
PICTURES = (".png", ".svg")


def place(source: str, target: str) -> str:
    """Where a link of a page points to, from the root of the checkout; both with slashes."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), target))


def relinked(text: str, source: str, page: str) -> str:
    """The text of a page with links that work in the site.

    Args:
        text: Markdown.
        source: the page's file, from the root of the checkout.
        page: its place in the site.
    """

    def replace(match: re.Match[str]) -> str:
        picture, words, target, anchor = match.groups()
        file = place(source, target)
        if file.startswith("docs/"):
            goal = file.removeprefix("docs/")
        elif file == "README.md":
            goal = "index.md"
        elif file.endswith(PICTURES):
            goal = file
        else:
            return words if file in words else f"{words} (`{file}`)"
        return f"{picture}[{words}]({posixpath.relpath(goal, posixpath.dirname(page) or '.')}{anchor or ''})"

    return LINK.sub(replace, text)


def pictures(pages: list[Path]) -> set[str]:
    """The pictures outside docs/ that pages show, from the root of the checkout."""
    shown = set()
    for page in pages:
        source = page.relative_to(CHECKOUT).as_posix()
        shown |= {place(source, match[3]) for match in LINK.finditer(page.read_text())}
    return {file for file in shown if file.endswith(PICTURES) and not file.startswith("docs/")}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds README.md as the first page, and the pictures of results/."""
    from mkdocs.structure.files import File

    readme = (CHECKOUT / "README.md").read_text()
    files.append(File.generated(config, "index.md", content=relinked(readme, "README.md", "index.md")))
    for name in sorted(pictures([*(CHECKOUT / "docs").glob("*.md"), CHECKOUT / "README.md"])):
        files.append(File.generated(config, name, abs_src_path=str(CHECKOUT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Changes the links of the pages in docs/."""
    here = page.file.src_uri
    return markdown if here == "index.md" else relinked(markdown, f"docs/{here}", here)
