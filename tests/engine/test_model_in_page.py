"""The built-in model in a page from a folder, without a network: every explorer answers what its reader types."""

from __future__ import annotations

import json
import re
import threading
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import pytest
from browsing import slowness

pytestmark = pytest.mark.slow

HOSTILE = "<script>ran = 1</script><img src=x>"


def longest_task(trace: bytes) -> float:
    """Milliseconds of processor time: the longest task of the page's own thread while Chromium took ``trace``."""
    events = json.loads(trace)["traceEvents"]
    own = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name" and e["args"]["name"] == "CrRendererMain"}
    tasks = [e for e in events if e["name"].endswith("::RunTask") and (e["pid"], e["tid"]) in own and "tdur" in e]
    return max(task["tdur"] for task in tasks) / 1000


def opened(page) -> float:
    """Presses the button; how many seconds until the model is there."""
    page.set_default_timeout(60_000)
    start = perf_counter()
    page.get_by_role("button", name="Use the model in this page").click()
    page.get_by_role("button", name="Stop the model").wait_for()
    return perf_counter() - start


def test_the_first_answer_comes_soon_and_the_page_stays_awake(folder, explorers, visit, chromium):
    """The best of a few, and of tasks their processor time, as a suite shares its cores."""
    firsts, tasks = [], []
    while len(firsts) < 5 and not (firsts and min(firsts) <= 3 and min(tasks) <= 50):
        page = visit(folder / "lens.html")
        chromium.start_tracing(page=page, categories=["toplevel"])
        start = perf_counter()
        opened(page)
        page.get_by_label("your prompt").fill("The capital of Italy is")
        page.get_by_label("target").last.fill("Oslo")
        page.keyboard.press("Enter")
        page.locator("thead th", has_text="·Italy").first.wait_for()
        first, longest = perf_counter() - start, longest_task(chromium.stop_tracing())
        slower = slowness(page.evaluate)
        firsts.append(first / slower)
        tasks.append(longest / slower)
    print(f"first answer {min(firsts):.2f} s, longest task {min(tasks):.0f} ms, the best of {len(firsts)}")
    assert min(firsts) <= 3 and min(tasks) <= 50
    explorer = explorers["lens"]
    want = explorer.compute({"prompt": "The capital of Italy is", "target": "Oslo"})
    word = want["words"][want["readings"]["ff2"]["bottom"][7][4][0]]
    assert page.get_by_role("grid").nth(1).locator("tbody td").nth(4).inner_text() == word


class Memory:
    """Bytes that the pages hold for themselves: scripts, strings, arrays and Workers, as Linux counts them."""

    def __init__(self, browser):
        processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
        self.files = [Path(f"/proc/{p['id']}/smaps_rollup") for p in processes if p["type"] == "renderer"]
        self.before = self.most = 0
        self.before = self.now()

    def now(self) -> int:
        """Bytes more than at the beginning."""
        text = "".join(file.read_text("utf-8") for file in self.files)
        return 1024 * sum(int(n) for n in re.findall(r"(?m)^Private_\w+: +(\d+) kB", text)) - self.before

    @contextmanager
    def watched(self):
        """``most`` is their peak, asked for again and again while whatever stands below goes on."""

        def watch():
            while not over.wait(0.005):
                self.most = max(self.most, self.now())

        over, self.most = threading.Event(), 0
        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.most = max(self.most, self.now())  # which fails where a process has gone meanwhile


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="Linux alone says what a process holds")
def test_model_program_and_what_they_leave_take_at_most_150_mb_at_any_time(folder, visit, chromium):
    """The page's process while the model is opened and long prompts are asked, less what it held before.

    A browser collects its garbage when it likes: the best of up to three readers.
    """
    peaks = []
    while len(peaks) < 3 and not (peaks and min(map(max, peaks)) <= 150e6):
        page = visit(folder / "lens.html")
        page.set_default_timeout(60_000)
        page.context.new_cdp_session(page).send("HeapProfiler.collectGarbage")
        memory = Memory(chromium)
        with memory.watched():
            opened(page)
        opening = memory.most
        with memory.watched():
            for i in range(12):  # each leaves about 10 MB of garbage
                page.get_by_label("your prompt").fill("cat " * (16 + i) + "is")
                page.get_by_label("target").last.fill("Oslo")
                page.keyboard.press("Enter")
                page.wait_for_function("(n) => document.querySelectorAll('thead th').length > 2 * n", arg=16 + i)
        peaks.append((opening, memory.most))
        page.context.close()
        print(f"memory: at most {opening / 1e6:.0f} MB while it opens, {memory.most / 1e6:.0f} MB while it answers")
    assert all(min(pair) > 20e6 for pair in peaks), "the weights alone are 19 MB"
    assert min(map(max, peaks)) <= 150e6


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


def test_a_fact_of_ones_own_is_edited_and_the_edited_model_tried(folder, explorers, visit):
    page = visit(folder / "edit.html")
    opened(page)
    for label, text in (("your prompt", "The capital of Italy is"), ("its subject", "Italy"), ("new answer", "Oslo")):
        page.get_by_label(label, exact=True).fill(text)
    page.get_by_role("button", name="Edit").click()
    mine = page.locator(".answered").filter(has_text="The capital of Italy is")
    mine.locator(".line").nth(1).filter(has_text="·Oslo").wait_for()
    page.get_by_label("try the edited model on").fill(f"The capital of Germany is {HOSTILE}")
    page.keyboard.press("Enter")
    tried = page.locator(".answered").filter(has_text=f"The capital of Germany is {HOSTILE} …")
    tried.wait_for()
    fact = {"prompt": "The capital of Italy is", "subject": "Italy", "target": "Oslo"}
    want = explorers["edit"].compute({**fact, "free": f"The capital of Germany is {HOSTILE}"})
    strength = page.get_by_label("strength of the edit")
    for place, after in enumerate([want["before"], *want["after"][0][0]]):  # 0, 0.5, 1
        strength.fill(str(place))
        said = tried.locator(".line .title .word").all_inner_texts()
        assert said == [want["words"][answer[0][2]] for answer in (want["before"], after)]
    assert page.evaluate("window.ran === undefined") and not page.locator(".lens-explorer :is(img, script)").count()


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


def test_what_two_share_and_what_one_alone_has_is_removed(folder, explorers, visit):
    page = visit(folder / "overlap.html")
    assert not page.get_by_label("your prompt").is_visible()
    opened(page)
    page.get_by_label("third", exact=True).select_option("")
    page.get_by_label("your prompt").fill("A cafe is a kind of")
    page.keyboard.press("Enter")
    asked = page.locator(".answered")
    asked.wait_for()
    want = explorers["overlap"].compute({"of": [0, 1], "prompt": "A cafe is a kind of"})
    removed = ["− A only", "− B only", "− A∩B", "− A", "− B", "− A∪B"]
    assert asked.locator(".when").all_inner_texts() == ["before", *removed]
    said = [want["words"][answer[0][2]] for answer in (want["before"], *want["after"])]
    assert asked.locator(".line .title .word").all_inner_texts() == said and len(set(said)) > 1
    page.get_by_label("second", exact=True).select_option("2")
    page.locator(".sets").filter(has_text="seed 2").wait_for()
    assert not asked.count(), "it was asked of other two"


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
        times.append(page.evaluate("took") / slowness(page.evaluate))
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
