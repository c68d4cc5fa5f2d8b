"""What can a reader look at while other chapters still run? One executed chapter as a page, without network."""
import re
from importlib.util import find_spec
from pathlib import Path

from notebooks import page

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)[^)]*\)")  # to a page that is not built yet


def write(notebook, path):
    """The executed `notebook` as HTML at `path`, as a chapter shows itself: solutions hidden, formulas set offline."""
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    shown = page(notebook)
    for cell in shown.cells:
        if cell.cell_type == "markdown":
            cell.source = LINK.sub(r"\1", cell.source)
    settings = Config()
    hidden = dict(remove_input_tags=("hide-input",), remove_cell_tags=("teacher",))
    settings.TagRemovePreprocessor.update(enabled=True, **hidden)
    settings.HTMLExporter.update(mathjax_url="", require_js_url="", jquery_url="", embed_images=True)
    text, _ = HTMLExporter(config=settings).from_notebook_node(shown)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace("</head>", f"{_formulas()}</head>", 1), encoding="utf-8")
    return path


def _formulas():
    """The MathJax that the built pages bring, from where it is installed."""
    found = find_spec("sphinx-mathjax-offline")
    if not found:
        return ""
    program = Path(found.origin).parent / "static" / "mathjax" / "tex-chtml.js"
    return (r'<script>MathJax = {tex: {inlineMath: [["$", "$"]], displayMath: [["$$", "$$"]]}};</script>'
            f'<script defer src="{program.as_uri()}"></script>')
