"""What does a page need to run a model by itself?  Engine, kernel, the model's files and subnetworks, each a script.

They work from a folder without a server: nothing is fetched or imported; what one script declares the next one uses.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from lens.course.widgets.in_page import digests
from lens.mask import Subnetwork

if TYPE_CHECKING:
    from IPython.display import Markdown

PAGE = Path(__file__).with_name("page")
"""The folder of everything that runs in a page."""

PARTS = ("products", "tokenizer", "weights", "forward", "backward", "read", "edit", "answer")
"""The engine's files in the order of reading; each uses only what it declares itself and what the others declare."""

KERNEL = (
    *("text", "words", "request", "lens_case", "upper", "relations", "edit_case"),
    *("masks", "mask_case", "chance", "overlap_case", "region_case", "respond"),
)
"""What answers the explorers' requests with the engine: ``openKernel`` and ``respond``, see ``respond.js``."""


def engine_script() -> str:
    """The engine as one script: its functions, and nothing that runs."""
    return "\n".join((PAGE / "engine" / f"{part}.js").read_text("utf-8") for part in PARTS)


def listing(*names: str) -> Markdown:
    """The engine's functions of these names, each with the formula above it, as they stand in its files.

    Raises ``ValueError`` where the engine has no such function.
    """
    from IPython.display import Markdown  # a notebook has it already; elsewhere it is slow to import

    script, found = engine_script(), []
    for name in names:
        whole = re.search(rf"(?ms)^(?:/\*\*(?:(?!\*/).)*\*/\n)?function {re.escape(name)}\(.*?^}}$", script)
        if not whole:
            known = ", ".join(re.findall(r"(?m)^function (\w+)", script))
            raise ValueError(f"The engine has no function {name!r}: choose one of {known}.")
        found.append(whole[0])
    return Markdown("```js\n{}\n```".format("\n\n".join(found)))


def kernel_script() -> str:
    """The kernel as one script, to stand behind the engine's: its functions, and nothing that runs."""
    return "\n".join((PAGE / "kernel" / f"{part}.js").read_text("utf-8") for part in KERNEL)


def model_script(name: str, folder: str | Path) -> str:
    """The files of a model of GPT-2's kind as a script that puts them into ``lensModels[name]``, the weights in base64.

    ``openModel(fromBase64(m.weights).buffer, m.config, m.tokenizer)`` opens one.  The weights are the comment of a
    function that is asked for its text: of a string as long the browser's parser would make five copies.

    >>> from lens.data import paths
    >>> model_script("mini", paths.model())[:54]
    '(globalThis.lensModels ??= {})["mini"] = {"config":{"a'
    """
    folder = Path(folder)
    files = {name: json.loads((folder / f"{name}.json").read_text("utf-8")) for name in ("config", "tokenizer")}
    weights = base64.b64encode((folder / "model.safetensors").read_bytes()).decode()
    held = json.dumps(files, ensure_ascii=True, separators=(",", ":"))
    begin, end = "() => {/*", "*/}"
    text = f"({begin}{weights}{end}).toString().slice({len(begin)}, -{len(end)})"
    return f'(globalThis.lensModels ??= {{}})[{json.dumps(name)}] = {held[:-1]},"weights":{text}}};\n'


def mask_script(subnetworks: Iterable[Subnetwork]) -> str:
    """Subnetworks as a script that puts them into ``lensMasks``, under the digests that an explorer's state names.

    Of each the sites, [layer, site, d_in, d_out, 1 if it masks neurons], and all their bits, through zlib, in base64:
    2 % of 1.8 million weights are 55 kB.

    >>> from lens.mask import shipped
    >>> one = mask_script([shipped("building", granularity="neuron")])
    >>> one[:31], one[47:73]
    ('(globalThis.lensMasks ??= {})["', '"] = {"sites":[[4,"attn_q"')
    """
    subnetworks = list(subnetworks)
    lines = []
    for name, one in zip(digests(subnetworks), subnetworks):
        sites = [[*key, *one.shapes[key], int(bits.shape[1] == 1)] for key, bits in one.bits.items()]
        packed = b"".join(bits.bytes.cpu().numpy().tobytes() for bits in one.bits.values())
        held = {"sites": sites, "bits": base64.b64encode(zlib.compress(packed, 9)).decode()}
        lines.append(f'(globalThis.lensMasks ??= {{}})["{name}"] = {json.dumps(held, separators=(",", ":"))};\n')
    return "".join(lines)
