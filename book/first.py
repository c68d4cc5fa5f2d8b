"""What does the landing page show, and which model lies beside the pages?  HTML, and two scripts for `_static/`."""

from lens.course.widgets.beside import IN_PAGE, announcement, page_script
from lens.course.widgets.first_page import FirstExplorer
from lens.model import load


def explorer():
    """The landing page's explorer as Markdown that holds its HTML as it is."""
    made = FirstExplorer(load(IN_PAGE))
    return "\n".join(["``````{raw} html", made.html(), "``````"])


def scripts():
    """{file name: text}: the announcement that every page loads, and the model that it loads when the reader asks."""
    return {"beside.js": announcement(), f"{IN_PAGE}.js": page_script()}
