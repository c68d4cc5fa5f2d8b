"""What does a reader see of the chapters before opening one? A card for each: its picture, its title, its claim.

The picture is a chapter's first figure, from its executed copy, made small. A cell tagged `cover` shows another one.
"""
import base64
import io

from notebooks import heading_and_claim
from PIL import Image

WIDE = 560  # pixels of a picture: a card is at most half as wide


def figures(notebook):
    """The PNG of each figure of an executed chapter; of cells tagged `cover` first."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                picture = base64.b64decode(output["data"]["image/png"])
                found.append(("cover" not in cell.metadata.get("tags", []), picture))
    return [picture for _, picture in sorted(found, key=lambda one: one[0])]


def thumbnail(picture):
    """The picture as a small PNG of few colors."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image = image.resize((WIDE, round(image.height * WIDE / image.width)), Image.Resampling.LANCZOS)
    new = io.BytesIO()
    image.quantize(128).save(new, "PNG", optimize=True)
    return new.getvalue()


def cards(toc, executed, folder):
    """Markdown of all cards; their pictures are written into `folder`, below that of the page."""
    parts = []
    folder.mkdir(parents=True, exist_ok=True)
    for part in toc["parts"]:
        for name in (entry["file"] for entry in part["chapters"] if entry["file"] in executed):
            notebook, _ = executed[name]
            title, claim = heading_and_claim(notebook)
            drawn = figures(notebook)
            if drawn:
                (folder / f"{name}.png").write_bytes(thumbnail(drawn[0]))
            seconds = notebook.metadata.lens_book.seconds
            picture = [f"[![{title}]({folder.name}/{name}.png)]({name}.ipynb)", ""]  # a link needs a name
            parts += [":::{container} card", *(picture if drawn else []),
                      f"**[{title}]({name}.ipynb)**", "", claim.removeprefix("**Claim.** "), "",
                      f"{part['caption']} · run time {seconds:.0f} s", ":::"]
    return "\n".join(["::::{container} cards", *parts, "::::"])
