"""What the tests of explorers may ask for: the page an explorer makes, printed or with a kernel that the test plays."""

from __future__ import annotations

import pytest

PAGE = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Explorer</title>
<meta name="viewport" content="width=device-width"></head><body><main><h1>Explorers</h1>{}</main></body></html>"""


@pytest.fixture
def printed(monkeypatch):
    """``printed(explorer, …)``: a page of explorers as the book prints them.

    ``live=True``: a page that believes in a kernel; the test hears ``root.model``'s requests and sets its answers.
    """

    def page(*explorers, live: bool = False) -> str:
        with monkeypatch.context() as patch:
            patch.setenv("LENS_STATIC", "1")
            text = "\n".join(explorer._repr_mimebundle_()["text/html"] for explorer in explorers)
        if live:
            assert text.count('"live":false') == len(explorers)
            text = text.replace('"live":false', '"live":true')
        return PAGE.replace("{}", text)

    return page


@pytest.fixture
def contrasts():
    """``contrasts(page, selector)``: the WCAG contrast of text and ground of every element found."""

    def measure(page, selector: str) -> list[float]:
        return page.eval_on_selector_all(
            selector,
            """(all) => all.map((node) => {
                const light = (text) => {
                    const c = text.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
                        .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
                    return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2];
                };
                let ground = node;
                while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
                const [a, b] = [light(getComputedStyle(node).color), light(getComputedStyle(ground).backgroundColor)];
                return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
            })""",
        )

    return measure


def _violations(page) -> list[str]:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
    found = axe.Axe().run(page, context=".lens-explorer", options={"preload": False}).response["violations"]
    return [f"{v['id']} ({v['impact']}): {[node['html'] for node in v['nodes']][:3]}" for v in found]


@pytest.fixture
def accessible():
    """``accessible(page)``: axe-core finds nothing to say about the explorers of the page."""

    def check(page):
        assert not (found := _violations(page)), found

    return check


@pytest.fixture
def kernel():
    """``kernel(page, explorer)``: the explorer itself answers what the only explorer of a live page asks."""

    def attach(page, explorer):
        def answer(request):
            explorer.request = request
            return explorer.answer

        page.expose_function("answer", answer)
        page.evaluate(
            """() => {
                const { model } = document.querySelector(".lens-explorer-root");
                model.on("change:request", async () => {
                    model.set("answer", await answer(model.get("request")));
                    model.save_changes();
                });
            }"""
        )

    return attach
