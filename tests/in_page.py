"""Engine and kernel of the page as a test asks them: in a page of a browser, or in node where there is no browser."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from time import perf_counter

import numpy
import torch

from lens.course.widgets.engine import engine_script, kernel_script, model_script

DRIVER = Path(__file__).parent / "engine" / "driver.js"
PAGE = '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>Engine</title><body>{}</body></html>'

NODE = """
const { runInThisContext } = require("vm"), { readFileSync } = require("fs");
require("readline").createInterface({ input: process.stdin }).on("line", async (line) => {
    const { source, argument, file } = JSON.parse(line);
    if (file) runInThisContext(readFileSync(file, "utf8"));
    console.log(JSON.stringify(file ? {} : await answer(source, argument)));
});
"""


class Problem(Exception):
    """What the engine refused, in its words."""


class Engine:
    """``ask("(argument) => …", argument)``: what the function gives as plain JSON; ``open(name, folder)``: a model."""

    def __init__(self, folder: Path, page=None):
        self.folder, self.page = folder, page
        code = engine_script() + kernel_script() + DRIVER.read_text(encoding="utf-8")
        if page:
            (folder / "page.html").write_text(PAGE.format(f"<script>{code}</script>"), encoding="utf-8")
            self.page.goto((folder / "page.html").as_uri())
        else:
            (folder / "engine.js").write_text(code, encoding="utf-8")
            self.process = subprocess.Popen(
                ["node", "-e", NODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
            )
            self._line({"file": str(folder / "engine.js")})

    def open(self, name: str, folder: Path) -> float:
        """Load a model's script as a page does; the milliseconds that took."""
        return self.load(name, model_script(name, folder))

    def load(self, name: str, text: str) -> float:
        """Run a script from a file as a page does; the milliseconds that took."""
        script = self.folder / f"{name}.js"
        script.write_text(text, encoding="utf-8")
        if self.page:
            load = """async (src) => {
                const start = performance.now();
                await new Promise((onload, onerror) => {
                    document.body.append(Object.assign(document.createElement("script"), { src, onload, onerror }));
                });
                return performance.now() - start;
            }"""
            return self.page.evaluate(load, script.as_uri())
        start = perf_counter()
        self._line({"file": str(script)})
        return 1000 * (perf_counter() - start)

    def ask(self, source: str, argument=None):
        if self.page:
            found = json.loads(self._evaluated([source, json.dumps(argument)]))
        else:
            found = self._line({"source": source, "argument": argument})
        if "problem" in found:
            raise Problem(found["problem"]) from RuntimeError(found["where"])
        return found.get("value")

    def _evaluated(self, asked: list[str]) -> str:
        """The page's answer, whose promise the page keeps: Chromium's debugger may forget it, and is asked again."""
        keep = "([source, argument]) => (window.keptAnswer = answer(source, JSON.parse(argument)).then(JSON.stringify))"
        try:
            return self.page.evaluate(keep, asked)
        except Exception as error:
            if "garbage collected" not in str(error):
                raise
            return self.page.evaluate("() => window.keptAnswer")

    def _line(self, job: dict) -> dict:
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        if not self.page:
            self.process.stdin.close()
            self.process.wait()


def save(lm, folder: Path) -> Path:
    """A model's files as the engine reads them, float32."""
    from safetensors.torch import save_file

    state = {name: t.float().clone() for name, t in lm.model.state_dict().items() if name != "lm_head.weight"}
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(lm.model.config.to_dict()), encoding="utf-8")
    lm.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def unpacked(text: str, *shape: int) -> torch.Tensor:
    """What the driver packed, as a tensor of this shape."""
    return torch.from_numpy(numpy.frombuffer(base64.b64decode(text), dtype="<f4").copy()).reshape(*shape)
