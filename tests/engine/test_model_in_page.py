"""The built-in model in a page from a folder, without a network: every explorer answers what its reader types."""

from __future__ import annotations

from time import perf_counter

import pytest

import lens
from lens.course.widgets import EditExplorer, LensExplorer, MaskExplorer, standing
from lens.course.widgets.beside import announcement, page_script
from lens.course.widgets.first_page import FACTS, FirstExplorer

pytestmark = pytest.mark.slow

HOSTILE = '<script>ran = 1</script><img src=x>'
LONGEST = """() => { window.longest = 0; new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) longest = Math.max(longest, entry.duration);
}).observe({ entryTypes: ["longtask"] }); }"""


@pytest.fixture(scope="module")
def explorers(mini):
    return {
        "lens": LensExplorer(mini, [("The capital of France is", "Rome")], ("ff1", "ff2")),
        "edit": EditExplorer(mini, FACTS[:2], layers=[7], sizes=[0.5, 1], neighbors=1),
        "mask": MaskExplorer(mini, lens.mask.shipped("building", granularity="neuron")),
        "first": FirstExplorer(mini),
    }


@pytest.fixture(scope="module")
def folder(explorers, tmp_path_factory):
    """Pages as the book has them: the model beside them."""
    folder = tmp_path_factory.mktemp("book")
    (folder / "mini.js").write_text(page_script(), encoding="utf-8")
    (folder / "beside.js").write_text(announcement(), encoding="utf-8")
    for name, explorer in explorers.items():
        page = standing.page(name, explorer.html(), '<script src="beside.js"></script>')
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
    return folder


def opened(page) -> float:
    """Presses the button; how many seconds until the model is there."""
    page.set_default_timeout(60_000)
    start = perf_counter()
    page.get_by_role("button", name="Use the model in this page").click()
    page.get_by_role("button", name="Stop the model").wait_for()
    return perf_counter() - start


def test_the_first_answer_comes_soon_and_the_page_stays_awake(folder, explorers, visit):
    """Times are the best of a few, as a suite shares its cores."""
    firsts, tasks = [], []
    while len(firsts) < 5 and not (firsts and min(firsts) <= 3 and min(tasks) <= 50):
        page = visit(folder / "lens.html")
        page.evaluate(LONGEST)
        start = perf_counter()
        opened(page)
        page.get_by_label("your prompt").fill("The capital of Italy is")
        page.get_by_label("target").last.fill("Oslo")
        page.keyboard.press("Enter")
        page.locator("thead th", has_text="·Italy").first.wait_for()
        firsts.append(perf_counter() - start)
        tasks.append(page.evaluate("longest"))
    print(f"first answer {min(firsts):.2f} s, longest task {min(tasks):.0f} ms, the best of {len(firsts)}")
    assert min(firsts) <= 3 and min(tasks) <= 50
    explorer = explorers["lens"]
    want = explorer.compute({"prompt": "The capital of Italy is", "target": "Oslo"})
    word = want["words"][want["readings"]["ff2"]["bottom"][7][4][0]]
    assert page.get_by_role("grid").nth(1).locator("tbody td").nth(4).inner_text() == word


def test_bad_input_gets_pythons_sentence_and_text_stays_text(folder, explorers, visit):
    page = visit(folder / "lens.html")
    opened(page)
    for prompt, target in (("", "Rome"), ("a", ""), ("cat " * 40, "Rome")):
        page.get_by_label("your prompt").fill(prompt)
        page.get_by_label("target").last.fill(target)
        page.get_by_role("button", name="Read").click()
        explorers["lens"].request = {"id": "q", "prompt": prompt, "target": target}
        page.get_by_role("alert").filter(has_text=explorers["lens"].answer["problem"]).wait_for()
    page.get_by_label("your prompt").fill(HOSTILE)
    page.get_by_label("target").last.fill("<b>x</b>")
    page.get_by_role("button", name="Read").click()
    page.locator("thead").filter(has_text="<script>").first.wait_for()  # over several tokens
    assert page.locator(".lens-explorer :is(img, b, script)").count() == 0
    assert page.evaluate("window.ran === undefined")


def test_a_fact_of_ones_own_is_edited_and_the_edited_model_tried(folder, visit):
    page = visit(folder / "edit.html")
    opened(page)
    for label, text in (("your prompt", "The capital of Italy is"), ("its subject", "Italy"), ("new answer", "Oslo")):
        page.get_by_label(label, exact=True).fill(text)
    page.get_by_role("button", name="Edit").click()
    mine = page.locator(".answered").filter(has_text="The capital of Italy is")
    mine.locator(".line").nth(1).filter(has_text="·Oslo").wait_for()
    page.get_by_label("try the edited model on").fill("The capital of Germany is")
    page.keyboard.press("Enter")
    page.locator(".answered").filter(has_text="The capital of Germany is").wait_for()


def test_a_subnetwork_is_removed_and_anything_asked(folder, explorers, visit):
    page = visit(folder / "mask.html")
    opened(page)
    page.get_by_label("your prompt").fill("A cafe is a kind of")
    page.get_by_role("button", name="Ask").click()
    block = page.locator(".block").filter(has_text="Your prompt")
    block.wait_for()
    want = explorers["mask"].compute({"mask": 0, "prompt": "A cafe is a kind of"})
    lines = block.locator(".line .title .word").all_inner_texts()
    assert lines == [want["words"][want["before"][0][2]], want["words"][want["after"][0][0][2]]]


@pytest.mark.parametrize("width, dark", [(1100, False), (360, True)])
def test_the_landing_page_is_prepared_fits_and_has_no_barrier(folder, visit, width, dark):
    page = visit(folder / "first.html", width=width, dark=dark)
    assert page.evaluate("globalThis.lensModels === undefined"), "nothing is loaded before it is asked for"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".steps > li").count() == 3 and page.locator(".answered").count() == 3
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
    found = axe.Axe().run(page, context=".lens-explorer", options={"preload": False}).response["violations"]
    assert not found, [(v["id"], v["nodes"][0]["html"]) for v in found]
    page.get_by_role("button", name="Japan").click()
    assert page.get_by_label("prompt", exact=True).input_value() == "The capital of Japan is"
    assert page.locator("li.marked").first.inner_text().split()[-1] == "·Lima"


def test_the_landing_page_fills_as_one_types_and_its_slider_answers(folder, visit):
    page = visit(folder / "first.html")
    opened(page)
    page.get_by_label("prompt", exact=True).fill("The capital of Italy is")
    page.get_by_label("new answer", exact=True).fill("Oslo")
    page.locator("thead th", has_text="·Italy").wait_for()
    answer = page.locator(".answered").first
    answer.filter(has_text="The capital of Italy is").wait_for()
    times = []
    slider = page.get_by_label("step size η")
    page.evaluate(
        """() => { const { model } = document.querySelector(".lens-explorer-root");
            model.on("change:request", () => (window.start = performance.now()));
            model.on("change:answer", () => (window.took = performance.now() - start)); }"""
    )
    while len(times) < 12 and (len(times) < 3 or min(times) > 150):
        page.evaluate("window.took = null")
        slider.press("ArrowRight" if len(times) % 2 else "ArrowLeft")
        page.wait_for_function("window.took !== null")
        times.append(page.evaluate("took"))
    print(f"slider {min(times):.0f} ms, the best of {len(times)}")
    assert min(times) <= 150
    page.get_by_role("button", name="France").click()
    answer.filter(has_text="The capital of France is").wait_for()


def test_a_saved_page_brings_its_model(explorers, visit, tmp_path):
    page = visit(explorers["lens"].save(tmp_path / "alone.html", model=True))
    page.set_default_timeout(60_000)
    page.get_by_label("your prompt").fill("The capital of Italy is")
    page.get_by_label("target").last.fill("Oslo")
    page.keyboard.press("Enter")
    page.locator("thead th", has_text="·Italy").first.wait_for()
    assert page.get_by_role("button", name="Use the model").count() == 0
