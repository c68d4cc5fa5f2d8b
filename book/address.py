"""Where is the book published? One setting, and the copies that follow it.

The address is `Repository` in pyproject.toml. Badges, setup cells, Colab links and the citation repeat
it, because each must work on its own. Run without arguments, this rewrites the copies; with a URL, it
changes the setting first; `--check` only says which copy disagrees.
"""
import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SETTING = re.compile(r'(?m)^(Repository = ")([^"]*)(")')
ADDRESS = re.compile(r"https://github\.com/([A-Za-z0-9-]+/[A-Za-z0-9_.-]+?)(?:\.git)?/?")
SLUG = r"[A-Za-z0-9-]+/[A-Za-z0-9_-]+(?:\.(?!git\b)[A-Za-z0-9_-]+)*"
# Links of these forms always mean this repository; other links to GitHub are left alone.
COPY = re.compile(r"((?:git\+|git clone |url *= *\{)https://github\.com/|colab\.research\.google\.com/github/"
                  r"|raw\.githubusercontent\.com/)(" + SLUG + ")")


class AddressError(Exception):
    """One sentence: what is wrong with the address, and where."""


def read_address(root=ROOT):
    """The public address, as https://github.com/owner/name."""
    found = SETTING.search((root / "pyproject.toml").read_text(encoding="utf-8"))
    if not found:
        raise AddressError("pyproject.toml has no line Repository = \"https://github.com/owner/name\".")
    return "https://github.com/" + slug(found[2])


def slug(address):
    found = ADDRESS.fullmatch(address.strip())
    if not found:
        raise AddressError("the address must read https://github.com/owner/name (Colab opens nothing else), "
                           f"not {address!r}.")
    return found[1]


def files(root=ROOT):
    """Every text that may hold a copy of the address."""
    yield from (path for path in [root / "README.md", root / "environment.yml", root / "CITATION.cff"] if path.exists())
    for folder, pattern in [("book", "*.md"), ("book", "*.ipynb"), ("data", "**/*.md"), ("lens", "**/*.py")]:
        yield from sorted((root / folder).glob(pattern))


def copies(text, own, former=None):
    """Matches of the address in a text, also of a plain link to the former one."""
    names = {own, former} - {None}
    plain = re.compile(r"(https://github\.com/)(" + "|".join(map(re.escape, sorted(names))) + r")(?![\w-])")
    yield from COPY.finditer(text)
    yield from plain.finditer(text)


def rewrite(text, own, former=None):
    spans = {match.span(2) for match in copies(text, own, former)}
    for start, end in sorted(spans, reverse=True):
        text = text[:start] + own + text[end:]
    return text


def write(path, text):
    """Replace a file in one step, so that an interruption leaves the old one."""
    new = path.with_name(path.name + ".new")
    new.write_text(text, encoding="utf-8", newline="")
    os.replace(new, path)


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return file.read()


def check(root=ROOT):
    own = slug(read_address(root))
    for path in files(root):
        for number, line in enumerate(read(path).splitlines(), 1):
            for match in copies(line, own):
                if match[2] != own:
                    raise AddressError(f"{path.relative_to(root)}, line {number}: {match[0]} is not the address of "
                                       f"pyproject.toml (https://github.com/{own}); run `make address`.")


def change(address="", root=ROOT):
    """Set the address if one is given, then bring every copy into line with it."""
    former = slug(read_address(root))
    own = slug(address) if address.strip() else former
    changed = []
    setting = root / "pyproject.toml"
    for path in [*files(root), setting]:  # the setting last: until then a second run finishes the work
        old = read(path)
        new = SETTING.sub(rf"\g<1>https://github.com/{own}\g<3>", old) if path == setting else rewrite(old, own, former)
        if new != old:
            write(path, new)
            changed.append(str(path.relative_to(root)))
    return changed


def main(arguments):
    sys.stdout.reconfigure(errors="backslashreplace")  # a code page may lack a letter of a path
    try:
        if arguments == ["--check"]:
            check()
            print(f"Every copy of the address agrees: {read_address()}")
        else:
            changed = ", ".join(change(*arguments[:1]))
            print(f"The address is {read_address()}; {'changed: ' + changed if changed else 'nothing to change'}")
    except AddressError as error:
        print(f"lens: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
