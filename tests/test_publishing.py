"""Is what a publisher needs in order: one version, a citation, a changelog, workflows that name what exists?"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import lens

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def steps(workflow):
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_the_version_is_set_once_and_the_changelog_and_the_citation_follow_it():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'dynamic = ["version"]' in project and not re.search(r"(?m)^version =", project)
    path, pattern = re.search(r'(?s)\[tool\.hatch\.version\]\npath = "(.+?)"\npattern = \'(.+?)\'', project).groups()
    assert re.findall(pattern, (ROOT / path).read_text(encoding="utf-8")) == [lens.__version__]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == lens.__version__
    assert re.search(r"(?m)^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))[1] == lens.__version__


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_only_what_the_repository_has(path):
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["name"] == path.stem and workflow["permissions"]["contents"] == "read"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for step in steps(workflow):
        assert ("uses" in step) != ("run" in step)
        assert re.fullmatch(r"[\w./-]+@v\d+", step.get("uses", "a@v1")), "an action is pinned to its major version"
        for target in re.findall(r"\bmake ([a-z-]+)", step.get("run", "")):
            assert f"\n{target}:" in makefile
        for file in re.findall(r"\b(?:tests|book)/[\w/]+\.(?:py|txt)", step.get("run", "")):
            assert (ROOT / file).exists(), file


def test_every_python_that_is_allowed_is_tested():
    matrix = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8"))["jobs"]["fast"]["strategy"]["matrix"]
    oldest, below = re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', (ROOT / "pyproject.toml").read_text("utf-8")).groups()
    assert matrix["python"] == [f"3.{minor}" for minor in range(int(oldest), int(below))]
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}


def test_issue_templates_have_what_github_asks_for():
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.stem != "config":
            assert form["name"] and form["description"]
            assert all(field["type"] in ("textarea", "input") and field["attributes"]["label"] for field in form["body"])


def test_the_readme_shows_the_explorer_at_work_in_a_picture_that_loads_at_once():
    from PIL import Image

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    alt, place = re.search(r"!\[([^\]]{40,})\]\((book/_static/explorer\.webp)\)", readme[:2500]).groups()
    picture = Image.open(ROOT / place)
    assert picture.n_frames > 10 and picture.info["loop"] == 0 and (ROOT / place).stat().st_size <= 1.5e6
