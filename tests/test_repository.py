"""Does the repository keep its promises? One address, one place for pins, clean notebooks, clear failures."""
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import nbformat
import pytest
import yaml

import lens

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
NOTEBOOKS = sorted(BOOK.glob("*.ipynb"))
TOC = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
PAGES = [TOC["root"]] + [entry["file"] for part in TOC["parts"] for entry in part["chapters"]]
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def load(name):
    spec = importlib.util.spec_from_file_location(name, BOOK / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*command, cwd=ROOT, timeout=120, **environment):
    env = {**os.environ, **environment}
    return subprocess.run([str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout)


def sentence(error):
    """The one sentence of a failure: no traceback, nothing else on that stream but make's own last line."""
    lines = [line for line in error.strip().splitlines() if not line.startswith("make")]
    assert len(lines) == 1 and lines[0].startswith("lens: ") and lines[0].endswith("."), error
    return lines[0]


@pytest.fixture
def copy(tmp_path):
    """The repository's own set-up files in a folder with an awkward name."""
    place = tmp_path / "a folder's \"name\" ü"
    place.mkdir()
    shutil.copytree(BOOK, place / "book", ignore=shutil.ignore_patterns("_build", "__pycache__"))
    for name in ("Makefile", "pyproject.toml", "README.md", "environment.yml", "LICENSE"):
        shutil.copy(ROOT / name, place)
    return place


# The address

def test_every_copy_of_the_address_agrees():
    done = run(sys.executable, "book/address.py", "--check")
    assert done.returncode == 0, done.stderr


def test_changing_the_address_changes_every_copy_and_back_again(copy):
    address = load("address")
    before = {path: path.read_bytes() for path in [*address.files(copy), copy / "pyproject.toml"]}
    former = address.read_address(copy)
    address.change("https://github.com/someone-else/their.fork", copy)
    address.check(copy)
    own = former.removeprefix("https://github.com/")
    assert not [path for path in before if own in path.read_text(encoding="utf-8")]
    address.change(former, copy)
    assert before == {path: path.read_bytes() for path in before}


def test_a_copy_that_disagrees_is_named_with_its_line(copy):
    address = load("address")
    readme = copy / "README.md"
    lines = readme.read_text(encoding="utf-8").splitlines(keepends=True)
    number = next(i for i, line in enumerate(lines) if "colab.research.google.com/github/" in line)
    lines[number] = lines[number].replace(address.read_address().removeprefix("https://github.com/"), "old/name")
    readme.write_text("".join(lines), encoding="utf-8")
    with pytest.raises(address.AddressError, match=rf"README.md, line {number + 1}: .*old/name"):
        address.check(copy)


@pytest.mark.parametrize("wrong", ["github.com/a/b", "https://gitlab.com/a/b", "https://github.com/a", "not an address"])
def test_an_address_that_colab_cannot_open_is_refused(wrong):
    address = load("address")
    with pytest.raises(address.AddressError, match="https://github.com/owner/name"):
        address.slug(wrong)


# Versions

def test_exact_versions_stand_in_one_place_only():
    for path in [ROOT / "pyproject.toml", ROOT / "environment.yml", ROOT / "Makefile", *BOOK.glob("*.py")]:
        pinned = re.findall(r"[\w\]-]+==\d[\w.]*", path.read_text(encoding="utf-8"))
        assert not pinned, f"{path.relative_to(ROOT)} pins {pinned}; pins belong in book/requirements.txt"
    lines = [line.split("#")[0].strip() for line in (BOOK / "requirements.txt").read_text(encoding="utf-8").splitlines()]
    assert all(re.fullmatch(r"[a-z0-9-]+(\[[a-z]+\])?==[\w.]+( *;.*)?", line) for line in lines if line)


def test_installed_versions_and_pins_lie_within_the_ranges_of_pyproject():
    requirement = pytest.importorskip("packaging.requirements").Requirement
    pins = dict(line.split("==") for line in (BOOK / "requirements.txt").read_text().split() if "==" in line)
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    ranges = [requirement(item) for item in re.findall(r'"([a-z0-9-]+[>=][^"]+)"', text)]
    assert {"torch", "transformers"} <= {item.name for item in ranges}
    for item in ranges:
        assert item.name not in pins or pins[item.name] in item.specifier, f"{item} against the pin {pins[item.name]}"


# Notebooks and pages

def test_every_page_of_the_table_of_contents_exists():
    missing = [name for name in PAGES if not any((BOOK / f"{name}{suffix}").exists() for suffix in (".ipynb", ".md"))]
    assert not missing
    assert {path.stem for path in NOTEBOOKS} <= set(PAGES), "a notebook is not in _toc.yml"


def test_a_chapter_has_exercises_and_claims_and_an_appendix_has_none():
    appendices = {entry["file"] for part in TOC["parts"] if part["caption"] == "Appendix" for entry in part["chapters"]}
    assert appendices and {path.stem for path in NOTEBOOKS} == appendices | set(lens.check.CHAPTERS)
    for path in NOTEBOOKS:
        text = path.read_text(encoding="utf-8")
        assert ("BEGIN SOLUTION" in text) == (path.stem not in appendices), path.stem
        assert path.stem not in appendices or "lens.claim(" not in text, path.stem


@each_notebook
def test_notebooks_are_stripped(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert "widgets" not in notebook.metadata
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None, cell.source


@each_notebook
def test_markdown_cells_read_well_without_sphinx(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            assert not re.search(r"^\s*(:{3,}|`{3,})\s*\{|\{[a-z:]+\}`|^\([\w-]+\)=$|^\+\+\+", cell.source, re.MULTILINE), cell.source


@each_notebook
def test_no_line_of_text_is_a_comment_to_sphinx(path):
    """A line that begins with a percent sign is left out of the page."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            assert not re.search(r"(?m)^ {0,3}%", re.sub(r"(?ms)^```.*?^```", "", cell.source)), cell.source


@each_notebook
def test_the_setup_cells_are_the_same_in_every_chapter_and_the_model_a_parameter(path):
    def first_two(notebook):
        return [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"][:2]
    name, setup = first_two(path)
    assert [name.source, setup.source] == [cell.source for cell in first_two(NOTEBOOKS[0])]
    assert "lens.setup(MODEL, seed=0)" in setup.source and "MODEL =" not in setup.source
    tagged = [c for c in nbformat.read(path, as_version=4).cells if "parameters" in c.metadata.get("tags", [])]
    assert tagged == [name] and name.source.splitlines()[1].startswith('MODEL = "mini"')


@pytest.mark.slow
def test_a_value_that_papermill_injects_is_the_model_that_runs():
    from nbclient import NotebookClient

    name, setup = [c for c in nbformat.read(BOOK / "logit_lens.ipynb", as_version=4).cells if c.cell_type == "code"][:2]
    injected = nbformat.v4.new_code_cell('MODEL = "mini-s"')  # right behind the cell with the tag
    asked = nbformat.v4.new_code_cell("lm.name")
    notebook = nbformat.v4.new_notebook(cells=[name, injected, setup, asked])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    assert asked.outputs[0].data["text/plain"] == "'mini-s'"


@each_notebook
def test_figures_have_alt_text_and_a_caption(path):
    cells = nbformat.read(path, as_version=4).cells
    draws = re.compile(r"lens\.plot\.|plt\.(show|subplots|figure)\(")
    for number, cell in enumerate(cells):
        image = cell.metadata.get("mystnb", {}).get("image")
        if image is not None:
            assert len(image.get("alt", "").split()) >= 4, f"cell {number}: alt text must say what the figure shows"
            below = cells[number + 1].source if number + 1 < len(cells) else ""
            assert re.match(r"\*Figure ", below), f"cell {number}: no caption *Figure ...* below the figure"
        elif cell.cell_type == "code":
            assert not draws.search(cell.source), f"cell {number} draws but has no metadata.mystnb.image.alt:\n{cell.source}"


def test_no_file_carries_a_path_of_somebodys_machine():
    listed = run("git", "ls-files", "-co", "--exclude-standard")
    if listed.returncode:
        pytest.skip("not a git checkout")
    private = re.compile("/" + r"(home|Users|work|root)/\w")
    for name in listed.stdout.splitlines():
        path = ROOT / name.strip('"')
        if path.suffix in {".py", ".md", ".ipynb", ".yml", ".toml", ".txt", ".json"} and path.is_file() and path.stat().st_size < 2e6:
            found = private.search(path.read_text(encoding="utf-8"))
            assert not found, f"{name} holds {found[0]}"


# Setting up

def test_setup_checks_pass_here():
    done = run(sys.executable, "book/setup_env.py", "--check")
    assert done.returncode == 0, done.stderr


def test_an_old_python_is_told_so(monkeypatch, capsys):
    setup = load("setup_env")
    monkeypatch.setattr(setup.sys, "version_info", (3, 9, 18))
    assert setup.main([]) == 1
    assert "needs Python 3.10 to 3.13 and this is 3.9.18" in sentence(capsys.readouterr().err)


def test_a_full_disk_is_told_so(monkeypatch, capsys):
    setup = load("setup_env")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(setup, "complete", lambda: False)
    monkeypatch.setattr(setup.shutil, "disk_usage", lambda path: usage(10**11, 10**11, 2 * 10**9))
    assert setup.main([]) == 1
    assert "needs 5 GB of free disk and there are 2.0 GB" in sentence(capsys.readouterr().err)


def test_a_missing_venv_module_is_told_so(monkeypatch, capsys):
    setup = load("setup_env")
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    assert setup.main([]) == 1
    assert "no venv module" in sentence(capsys.readouterr().err)


@pytest.mark.slow
def test_no_network_is_told_so_and_leaves_no_stamp(copy):
    closed = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": os.devnull, "PIP_TIMEOUT": "2", "PIP_DEFAULT_TIMEOUT": "2",
              "PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": "", "PIP_NO_INDEX": ""}
    done = run(sys.executable, "book/setup_env.py", cwd=copy, **closed)
    assert done.returncode == 1
    assert "cannot be reached" in sentence(done.stderr)
    assert not (copy / ".venv" / ".complete").exists()


def test_a_damaged_environment_is_not_taken_for_complete(copy, monkeypatch):
    setup = load("setup_env")
    monkeypatch.setattr(setup, "ROOT", str(copy))
    monkeypatch.setattr(setup, "VENV", str(copy / ".venv"))
    monkeypatch.setattr(setup, "STAMP", str(copy / ".venv" / ".complete"))
    assert not setup.complete()
    (copy / ".venv").mkdir()
    (copy / ".venv" / ".complete").write_text(setup.key())
    assert not setup.complete(), "a stamp without a working interpreter"


PIP = {name: "" for name in os.environ if name.startswith("PIP_")} | {"PIP_CONFIG_FILE": os.devnull}


@pytest.fixture
def installer(copy, monkeypatch):
    """``installer(settings, uv status=, …)``: set up with these PIP_ variables and a uv that ends so: who was called."""
    setup = load("setup_env")
    monkeypatch.setattr(setup, "LOG", str(copy / "log"))
    monkeypatch.setattr(setup, "venv_python", lambda: sys.executable)

    def install(settings, uv, pip=0):
        called = []

        def ran(command, environment, what):
            called.append((command, environment))
            return (uv if command[0] == "uv" else pip), "ERROR: no"

        with monkeypatch.context() as patch:
            for name, value in (PIP | settings).items():
                patch.setenv(name, value)
            patch.setattr(setup.shutil, "which", lambda name: None if uv is None else name)
            patch.setattr(setup, "run", ran)
            setup.install_packages(["-r", "pins"], "packages")
        return called

    install.error = setup.SetupError
    return install


def names(called):
    return ["uv" if command[0] == "uv" else "pip" for command, _ in called]


def test_uv_installs_where_it_is_and_is_told_what_pip_is_told(installer):
    ((command, environment),) = installer(
        {"PIP_INDEX_URL": "https://a/simple", "PIP_EXTRA_INDEX_URL": "https://b/cpu\nhttps://c", "PIP_FIND_LINKS": "/d /e",
         "PIP_CONSTRAINT": "/f.txt", "PIP_CERT": "/g.pem", "PIP_TIMEOUT": "9"}, uv=0)
    assert command == ["uv", "pip", "install", "-r", "pins"]
    told = {name: environment.get(name) for name in (
        "UV_DEFAULT_INDEX", "UV_INDEX", "UV_FIND_LINKS", "UV_CONSTRAINT", "SSL_CERT_FILE", "UV_INDEX_STRATEGY", "UV_PYTHON")}
    assert list(told.values()) == ["https://a/simple", "https://b/cpu https://c", "/d,/e", "/f.txt", "/g.pem",
                                   "unsafe-best-match", sys.executable]


def test_settings_in_pips_own_file_count_and_its_variables_win(installer, tmp_path):
    file = tmp_path / "pip.conf"
    file.write_text("[global]\nindex-url = https://file\nfind-links = /file\n[install]\nfind-links = /install\n")
    ((_, environment),) = installer({"PIP_CONFIG_FILE": str(file), "PIP_INDEX_URL": "https://variable"}, uv=0)
    assert (environment["UV_DEFAULT_INDEX"], environment["UV_FIND_LINKS"]) == ("https://variable", "/install")


def test_pip_installs_where_uv_is_missing_lacks_a_word_for_a_setting_or_fails(installer, capsys):
    assert names(installer({}, uv=None)) == ["pip"]
    assert names(installer({"PIP_ONLY_BINARY": ":all:"}, uv=0)) == ["pip"]
    assert names(installer({}, uv=2)) == ["uv", "pip"]
    with pytest.raises(installer.error, match=r"^pip could not install the packages: no \(log"):
        installer({}, uv=2, pip=1)


def test_a_second_make_starts_within_two_seconds(copy, monkeypatch, capsys):
    setup = load("setup_env")
    (copy / ".venv" / "bin").mkdir(parents=True)
    for name, value in {"ROOT": copy, "VENV": copy / ".venv", "STAMP": copy / ".venv" / ".complete"}.items():
        monkeypatch.setattr(setup, name, str(value))
    monkeypatch.setattr(setup, "venv_python", lambda: sys.executable)
    (copy / ".venv" / ".complete").write_text(setup.key())
    begun = sum(os.times()[:4])  # of this process and of what it waits for, however busy the machine is
    assert setup.main([]) == 0 and capsys.readouterr() == ("", "")
    assert sum(os.times()[:4]) - begun < 2


def test_make_works_in_a_folder_with_an_awkward_name(copy):
    assert "make book" in run("make", cwd=copy).stdout
    assert run("make", "-n", "book", "test", cwd=copy).returncode == 0
    assert run(sys.executable, "book/setup_env.py", "--check", cwd=copy).returncode == 0


def test_make_names_a_python_that_does_not_work(copy):
    done = run("make", "book", "PYTHON=/no/such/python", cwd=copy)
    assert done.returncode != 0 and "/no/such/python is no working Python" in sentence(done.stderr)


def test_ci_runs_the_suite_with_a_fresh_execution():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK) and "CI=1 exec make test\n" in script.read_text()


def test_the_suite_runs_in_two_processes_names_its_slowest_tests_and_ci_alone_runs_the_longest():
    dry = ("make", "-n", "--no-print-directory")
    dry_runs = (run(*dry, *of).stdout.splitlines()[-1].strip() for of in (["test", "CI=1"], ["test", "CI="], ["test-fast"]))
    whole, some, fast = dry_runs
    assert whole.endswith("-m pytest -n 2 --durations=10")
    assert some == f'{whole} -m "not long"' and fast == f"{whole} --fast"


def test_notebook_files_are_plain_json_without_trailing_state():
    for path in NOTEBOOKS:
        assert set(json.loads(path.read_text(encoding="utf-8"))["metadata"]) <= {"kernelspec", "language_info"}, path.name
