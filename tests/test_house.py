"""Does a stranger find every room at first sight, and does every arrow point down?"""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

LENS = Path(__file__).resolve().parents[1] / "lens"
FLOORS = (
    ("given", "kernels", "results"),
    ("data",),
    ("model",),
    ("gradient",),
    ("readout",),
    ("edit", "mask", "world"),
    ("evaluate", "overlap", "relearn"),
    ("plot", "scale"),
    ("course",),
    ("commands",),
)
"""The rooms, from the lowest floor up.  A room takes from lower floors only, never from a neighbor on its own."""

FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
MODULES = {
    ".".join(path.relative_to(LENS.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(LENS.rglob("*.py"))
}


def imports(path: Path) -> set[str]:
    """The modules of lens that a file imports, anywhere in it: by ``from room import name`` the one that has the name."""
    found = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    left_out = {id(inner) for node in for_types for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in left_out:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in inside}
    return found & MODULES.keys()


def room(module: str) -> str | None:
    return module.split(".")[1] if module.count(".") and "__main__" not in module else None


def test_lens_holds_rooms_and_no_loose_file():
    entries = {path.name for path in LENS.iterdir() if path.name not in ("__pycache__", "_data")}
    assert entries == {*FLOOR, "__init__.py", "__main__.py"}


@pytest.mark.parametrize("name", FLOOR)
def test_a_room_says_which_question_it_answers(name):
    assert "?" in ast.get_docstring(ast.parse((LENS / name / "__init__.py").read_text(encoding="utf-8"))).split("\n")[0]


@pytest.mark.parametrize("module", MODULES)
def test_every_arrow_points_to_a_lower_floor(module):
    if own := room(module):
        taken = {room(other) for other in imports(MODULES[module])} - {own}
        assert None not in taken, "a room imports the face of the package"
        assert all(FLOOR[other] < FLOOR[own] for other in taken), f"{own} takes from {taken}"


def test_no_circle_of_files():
    TopologicalSorter({module: imports(path) - {module} for module, path in MODULES.items()}).prepare()


def test_one_name_has_one_meaning():
    """No two classes, type names or public functions of different rooms share a name, but for the kernels' own layers."""
    homes: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            named = [node.name] if isinstance(node, ast.ClassDef) else []
            if isinstance(node, ast.Assign):  # a type's name: Tokens = str | int | …
                named = [target.id for target in node.targets if isinstance(target, ast.Name)]
            for name in named:
                if name[0].isupper() and not name.isupper():
                    homes.setdefault(name, set()).add(module)
    assert not {name: found for name, found in homes.items() if len(found) > 1}
