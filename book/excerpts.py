"""How does the search show excerpts where pages may not be fetched, as in a folder without a server?

Sphinx's search fetches every page that it has found. The texts of all pages lie in one script, which the search page
loads; where the page is a file, a fetch is answered from that script.
"""
import json

from bs4 import BeautifulSoup
from execute import write

SCRIPT = """\
if (location.protocol === "file:") {
  const texts = %s;
  const fetched = window.fetch;
  window.fetch = (address) => {
    const name = decodeURI(String(address)).split("#")[0].split("/").pop();
    return name in texts ? Promise.resolve(new Response(texts[name])) : fetched(address);
  };
}
"""
DROPPED = "script, style, svg, img, .headerlink, mjx-container, .cell_output table, nav"


def text_of(html):
    """A page's own text as HTML with nothing but the marks of its sections, which excerpts are cut at."""
    main = BeautifulSoup(html, "html.parser").select_one("main article")
    for one in main.select(DROPPED):
        one.decompose()
    for one in main.find_all(True):
        if one.name == "section":
            one.attrs = {"id": one.get("id", "")}
        else:
            one.unwrap()
    return f'<div role="main">{main.decode_contents()}</div>'


def add(html):
    """Write the texts of the pages in the folder `html`, and let its search page load them."""
    texts = {path.name: text_of(path.read_text(encoding="utf-8")) for path in sorted(html.glob("*.html"))
             if path.name not in ("search.html", "genindex.html", "index.html")}
    write(html / "_static" / "excerpts.js", SCRIPT % json.dumps(texts, ensure_ascii=False))
    page = html / "search.html"
    script = '<script src="_static/excerpts.js"></script></head>'
    write(page, page.read_text(encoding="utf-8").replace("</head>", script, 1))
