"""Headless Chromium for tests of pages: what a page looks like at a width, without a network."""

from __future__ import annotations

import html
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-extensions"),
)

# The page stands in a frame of the width asked for; this page around it looks into it.
_OUTSIDE = """<!doctype html><title>outside</title><body style="margin: 0"><pre id="seen"></pre>{frames}
<script>
const look = frame => {{
  const page = frame.contentDocument, root = page.documentElement, style = e => getComputedStyle(e);
  const right = e => e.getBoundingClientRect().right;
  const inside = [...page.querySelectorAll("main *")].filter(e => !e.closest(".scroll, svg, thead"));
  return {{
    width: frame.clientWidth, scrolls: root.scrollWidth, title: page.title,
    headings: [...page.querySelectorAll("h1, h2")].map(e => e.textContent),
    verdict: page.querySelector(".verdict p").textContent,
    top: page.querySelector(".verdict").getBoundingClientRect().top,
    outside: inside.filter(e => right(e) > frame.clientWidth + 1).map(e => e.outerHTML.slice(0, 80)),
    smallest: Math.min(...inside.map(e => parseFloat(style(e).fontSize))),
    back: style(page.body).backgroundColor, ink: style(page.body).color,
    loaded: frame.contentWindow.performance.getEntriesByType("resource").length,
    scripts: page.scripts.length, images: page.images.length, alerted: window.alerted || 0,
    bars: [...page.querySelectorAll(".heat svg")].map(e => e.getBoundingClientRect().width),
  }};
}};
onload = () => {{
  document.querySelector("#seen").textContent =
    JSON.stringify([...document.querySelectorAll("iframe")].map(look));
}};
</script>"""


def seen(
    page: str, folder: Path, *, widths: tuple[int, ...] = (390, 1280), dark: bool = False
) -> list[dict[str, Any]]:
    """What Chromium makes of a page: sizes, colours and texts, a dictionary for each width."""
    attribute = html.escape(page, quote=True)
    frames = "".join(
        f'<iframe srcdoc="{attribute}" style="border: 0; width: {width}px; height: 900px"></iframe>'
        for width in widths
    )
    outside = folder / "outside.html"
    outside.write_text(_OUTSIDE.format(frames=frames), encoding="utf-8")
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    command = [
        CHROMIUM,
        *FLAGS,
        *scheme,
        "--window-size=1700,1000",
        "--virtual-time-budget=5000",
        "--dump-dom",
    ]
    profile = folder / "profile"
    done = subprocess.run(
        [*map(str, command), f"--user-data-dir={profile}", outside.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    text = done.stdout.partition('<pre id="seen">')[2].partition("</pre>")[0]
    return json.loads(html.unescape(text))
