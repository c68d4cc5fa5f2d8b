"""The model in the page in Firefox: the same numbers, as fast, from a folder and from a server, without a network."""

from __future__ import annotations

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from time import perf_counter

import pytest
import torch
from firefox import PROGRAM, Firefox
from in_page import Engine, unpacked
from test_kernel_in_page import CLOCK
from test_mini_in_page import READ, same_ranks, same_words

import lens
from lens.data import paths

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(not PROGRAM, reason="no Firefox: apt install firefox-esr"),
]

LOADED = "() => performance.getEntriesByType('resource').map(({ name }) => name)"
LINE = '//*[@class = "answered"][.//*[starts-with(., "{}")]]//*[@class = "line"][{}]'


@pytest.fixture(scope="module")
def in_firefox(tmp_path_factory):
    """The engine in Firefox, where Firefox compiles it: on some machines it only interprets, a hundred times slower."""
    browser = Firefox(tmp_path_factory.mktemp("profile"))
    engine = Engine(tmp_path_factory.mktemp("firefox"), browser)
    engine.open("mini", paths.model())
    times = [perf_counter()]
    while len(times) < 4:
        engine.ask(READ, {"prompt": [100], "target": [200], "whole": False})
        times.append(perf_counter())
    took = min(after - before for before, after in zip(times, times[1:]))
    if took < 2:
        yield engine
    browser.close()
    if took >= 2:
        pytest.skip(f"Firefox does not compile JavaScript here: one token takes {took:.1f} s")


@pytest.fixture
def firefox(in_firefox):
    return in_firefox.page


def opened(firefox, address: str):
    firefox.goto(address)
    firefox.evaluate("() => localStorage.clear()")
    firefox.goto("about:blank")
    firefox.goto(address)
    firefox.click("Use the model in this page")
    firefox.find('//button[. = "Stop the model"]')


# --- the engine -------------------------------------------------------------------------------------------------------


def test_logits_deltas_words_and_ranks_are_pythons(in_firefox, mini, error):
    text = "Once upon a time there was a small house by the river, and the people who lived in it said that it had"
    for i, length in enumerate((1, 2, 5, 8, 13, 22)):
        prompt, target = mini.encode(text)[:length], mini.target_ids(("Rome", ",", "Buenos Aires is far")[i % 3])
        found = in_firefox.ask(READ, {"prompt": prompt, "target": target, "whole": False})
        trace = lens.capture(mini, prompt, target, sites=["ff1", "ff2"])
        with torch.no_grad():
            want = mini.model(torch.tensor([prompt])).logits[0, -1]
        got = unpacked(found["logits"], *want.shape)
        assert (got - want).abs().max() < 1e-3 and abs(found["loss"] - float(trace.loss)) < 1e-3
        same_words(want[None], got.topk(10).indices[None], 1)
        for layer, pair in enumerate(found["delta"]):
            for site, packed in zip(("ff1", "ff2"), pair):
                delta = trace.gradient(layer, site).delta
                assert error(unpacked(packed, *delta.shape), delta) < 1e-3, (length, layer, site)
        with torch.no_grad():
            z = mini.head(mini.norm(lens.logit_lens(mini, prompt + target[:-1], k=1).vectors[:, -1:]))
        top, _, ranks = (torch.tensor([[c[j] for c in row] for row in found["read"]["stream"]]) for j in range(3))
        same_words(z, top, 1)
        same_ranks(z, target[0], ranks)


@pytest.mark.parametrize("what, most", [("lens", 600), ("edit", 150)])
def test_a_reader_need_not_wait(firefox, in_firefox, explorers, what, most):
    prompt = "The official language of the country France is"
    asked = {"prompt": prompt, "subject": "France", "target": "Rome"}
    asked |= {"layer": 7, "eta": 0.3} if what == "edit" else {}
    times = []
    while len(times) < 24 and (len(times) < 6 or min(times) > most):  # the best of a few, or of their processor time
        begun = firefox.processor_seconds()
        times += in_firefox.ask(CLOCK, {"requests": [asked] * 5, "settings": explorers[what].state["kernel"]})
        times.append(1000 * (firefox.processor_seconds() - begun) / 5)
    print(f"{what}: {min(times):.0f} ms, the best of {len(times)}")
    assert min(times) <= most


# --- the pages --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(folder):
    """The same pages from a server on this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize("place", ["folder", "server"])
def test_the_model_loads_and_a_prompt_of_ones_own_is_read(firefox, folder, served, explorers, place):
    address = f"{folder.as_uri() if place == 'folder' else served}/lens.html"
    opened(firefox, address)
    firefox.type("your prompt", "The capital of Italy is")
    firefox.type("target", "Oslo\ue007")
    firefox.find('//thead//th[contains(., "·Italy")]')
    want = explorers["lens"].compute({"prompt": "The capital of Italy is", "target": "Oslo"})
    words = [want["words"][want["readings"]["ff2"]["bottom"][layer][4][0]] for layer in range(7, -1, -1)]
    rows = "[...document.querySelectorAll('[role=grid]')[1].querySelectorAll('tbody tr')]"
    assert firefox.evaluate(f"() => {rows}.map((row) => row.lastChild.textContent)") == words
    loaded = firefox.evaluate(LOADED)
    assert all(name.startswith((address.rsplit("/", 1)[0], "blob:", "data:")) for name in loaded), loaded


def test_bad_input_gets_pythons_sentence_and_text_stays_text(firefox, folder, explorers):
    opened(firefox, f"{folder.as_uri()}/lens.html")
    firefox.type("your prompt", " \ue007")
    explorers["lens"].request = {"id": "q", "prompt": " ", "target": "Rome"}
    firefox.find(f'//*[@role = "alert"][contains(., "{explorers["lens"].answer["problem"]}")]')
    firefox.type("your prompt", "<script>ran = 1</script><img src=x>")
    firefox.type("target", "<b>x</b>\ue007")
    firefox.find('//thead[contains(., "<script>")]')
    assert firefox.evaluate("() => document.querySelectorAll('.lens-explorer :is(img, b, script)').length") == 0


def test_a_fact_is_edited_by_a_slider_and_the_edited_model_tried(firefox, folder):
    opened(firefox, f"{folder.as_uri()}/edit.html")
    for label, text in (("your prompt", "The capital of Italy is"), ("its subject", "Italy"), ("new answer", "Oslo")):
        firefox.type(label, text)
    firefox.click("Edit")
    after = LINE.format("The capital of Italy is", 2)
    firefox.find(f'{after}[contains(., "·Oslo")]')
    edited = firefox.text(after)
    firefox.press("strength of the edit", "\ue012")
    assert firefox.text(after) != edited
    firefox.type("try the edited model on", "The capital of Germany is\ue007")
    firefox.find(LINE.format("The capital of Germany is", 2))


def test_a_subnetwork_is_removed_and_anything_asked(firefox, folder, explorers):
    opened(firefox, f"{folder.as_uri()}/mask.html")
    firefox.type("your prompt", "A cafe is a kind of\ue007")
    lines = '//*[@class = "block"][contains(., "Your prompt")]//*[@class = "line"][{}]//*[@class = "title"]/*'
    want = explorers["mask"].compute({"mask": 0, "prompt": "A cafe is a kind of"})
    said = [firefox.text(lines.format(i)) for i in (1, 2)]
    assert said == [want["words"][want["before"][0][2]], want["words"][want["after"][0][0][2]]]
