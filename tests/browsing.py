"""Pages as their readers open them: from a file, without a network, and nobody may complain."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path


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
