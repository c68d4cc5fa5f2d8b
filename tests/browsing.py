"""Pages as their readers open them: from a file, without a network, silent; and how slow a moment of a machine is."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

LOOP = """() => {
    const start = performance.now();
    let sum = 0;
    for (let i = 0; i < 4e7; i++) sum += Math.sqrt(i);
    return sum && performance.now() - start;
}"""
QUIET = 60
"""Milliseconds that the loop takes on the machine for which the bars of the tests are."""


def slowness(ask) -> float:
    """How many times as long as on that machine, at least once, the loop takes here and now; ``ask`` runs JavaScript.

    A machine that is lent out in parts can be four times slower for minutes, and a time is divided by this.
    """
    return max(1.0, min(ask(LOOP) for _ in range(3)) / QUIET)


@contextmanager
def visiting(chromium, folder: Path):
    """``visit(html or path, width=, dark=)``: the page as a reader opens it, from a file and without a network.

    At the end of the block no page may have asked for anything but files, and none may have complained.
    """
    contexts, asked, complaints = [], [], []

    def heard(message):
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    def open_page(content, width: int = 1280, dark: bool = False):
        path = content
        if isinstance(content, str):
            path = folder / f"page {len(contexts)}.html"
            path.write_text(content, encoding="utf-8")
        context = chromium.new_context(
            viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light", offline=True
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.set_default_navigation_timeout(60_000)  # a machine may be busy; how long a page takes has tests of its own
        own = ("file:", "data:", "blob:") if path is content else (path.as_uri(),)
        page.on("request", lambda request: None if request.url.startswith(own) else asked.append(request.url))
        page.on("console", heard)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not asked, f"a page asked for {asked}"
    assert not complaints, f"a page complained: {complaints}"
