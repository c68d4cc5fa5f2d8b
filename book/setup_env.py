"""How does `make` get from a bare Python to an environment that runs the book?

Creates `.venv`, installs the pinned versions of book/requirements.txt and then this repository
(editable): with uv where it is on the PATH and knows every setting that pip has here, else with pip. The stamp `.venv/.complete` is written last and names what was installed, so a second run
returns at once, an interrupted one is resumed, and a damaged environment is made anew. Every failure
is one sentence. Standard library only; the syntax is kept old so that an old Python can say that it is.
"""
import ast
import hashlib
import os
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
STAMP = os.path.join(VENV, ".complete")
LOG = os.path.join(VENV, "install.log")
REQUIREMENTS = os.path.join("book", "requirements.txt")
OLDEST, NEWEST = (3, 10), (3, 13)
NEEDED_GB = 5
PROBE = "import lens, torch, transformers, numpy, matplotlib, nbclient, ipykernel, jupyter_book, nbgrader, pytest, hypothesis"
STEPS = ("Collecting", "Downloading", "Using cached", "Installing", "Building",  # pip's
         "Resolved", "Prepared", "Installed")  # uv's
NO_NETWORK = ("NewConnectionError", "ConnectTimeout", "NameResolutionError", "Max retries", "Network is unreachable",
              "Name or service not known", "Temporary failure in name resolution", "Connection refused",
              "ConnectionResetError", "Connection broken", "ReadTimeout", "Read timed out", "ProxyError")

# pip's settings as uv's variables; those that do not change what is installed; any other leaves the work to pip.
UV = {"index-url": "UV_DEFAULT_INDEX", "extra-index-url": "UV_INDEX", "find-links": "UV_FIND_LINKS",
      "constraint": "UV_CONSTRAINT", "trusted-host": "UV_INSECURE_HOST", "cert": "SSL_CERT_FILE", "proxy": "ALL_PROXY"}
MANNERS = {"cache-dir", "config-file", "default-timeout", "disable-pip-version-check", "no-cache-dir", "no-color", "no-input",
           "progress-bar", "quiet", "require-virtualenv", "retries", "root-user-action", "timeout", "verbose"}


class SetupError(Exception):
    """One sentence for the reader: what is missing and what to do."""


def suits(version=None):
    """Is this Python one that the pins are known to resolve on?"""
    return OLDEST <= tuple(version or sys.version_info)[:2] <= NEWEST


def check_python():
    if not suits():
        raise SetupError("the book needs Python 3.10 to 3.13 and this is %s; install one of those, or name it: "
                         "make book PYTHON=/path/to/python3." % ".".join(map(str, sys.version_info[:3])))
    if os.pathsep in ROOT:
        raise SetupError("Python cannot make an environment in a folder whose path contains '%s'; "
                         "move the repository to another folder." % os.pathsep)
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        raise SetupError("this Python has no venv module; install it (on Debian and Ubuntu: apt install python3-venv) "
                         "and run the same command again.") from None


def check_disk():
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < NEEDED_GB:
        raise SetupError("the installation needs %d GB of free disk and there are %.1f GB here; "
                         "free some space and run the same command again." % (NEEDED_GB, free))


def venv_python():
    return os.path.join(VENV, "bin", "python")


def key():
    """What a complete environment was made from: pins, package metadata, interpreter and place."""
    digest = hashlib.sha256(repr((ROOT, sys.version_info[:3])).encode())
    for name in (REQUIREMENTS, "pyproject.toml"):
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def complete():
    try:
        with open(STAMP) as file:
            return file.read() == key() and works("import pip")
    except OSError:
        return False


def works(code):
    command = [venv_python(), "-c", code]
    try:
        return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT).returncode == 0
    except OSError:
        return False


def make_venv():
    shutil.rmtree(VENV, ignore_errors=True)
    base = getattr(sys, "_base_executable", sys.executable)  # not the very environment just removed
    done = subprocess.run([base, "-m", "venv", VENV], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        lines = done.stdout.decode(errors="replace").strip().splitlines() or ["no message"]
        raise SetupError("Python could not make the environment .venv: %s." % lines[-1].rstrip("."))


def pip_settings():
    """{option of `pip install`: value} of pip's files and variables, the strongest last."""
    shown = subprocess.run([venv_python(), "-m", "pip", "config", "list"], stdout=subprocess.PIPE, cwd=ROOT).stdout.decode()
    found = {}
    for section in ("global.", "install.", ":env:."):
        for line in shown.splitlines():
            name, _, value = line.partition("=")
            if name.startswith(section) and ast.literal_eval(value):  # pip, too, takes an empty one for not given
                found[name[len(section):]] = ast.literal_eval(value)
    return found


def uv_environment(settings):
    """What tells uv the settings of pip, or None if it has no word for one of them."""
    given = {name: value for name, value in settings.items() if name not in MANNERS}
    if not set(given) <= set(UV):
        return None
    told = {UV[name]: (",".join if name == "find-links" else " ".join)(value.split()) for name, value in given.items()}
    # As pip does: the best version of all indexes, the certificates of this system, and no other Python.
    fixed = {"UV_INDEX_STRATEGY": "unsafe-best-match", "UV_SYSTEM_CERTS": "1", "UV_PYTHON": venv_python()}
    return dict(os.environ, **fixed, **told)


def install_packages(arguments, what):
    """By uv if it can, else by pip, whose failure is the one that is explained."""
    started, uv = time.time(), shutil.which("uv")
    environment = uv and uv_environment(pip_settings())
    if not environment or run([uv, "pip", "install"] + arguments, environment, what)[0]:
        code, output = run([venv_python(), "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off",
                            "--retries", "2"] + arguments, os.environ, what)
        if code:
            raise SetupError(explain(output))
    print("  %s: done in %d s" % (what, time.time() - started), flush=True)


def run(command, environment, what):
    """(exit status, output) of an installer; its output goes to the log, one line of progress to the terminal."""
    started, shown, terminal = time.time(), 0.0, sys.stdout.isatty()
    with open(LOG, "a", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT, env=environment)
        output = []
        for raw in process.stdout:
            line = raw.decode(errors="replace")
            log.write(line)
            output.append(line)
            step = line.strip().split(" (from")[0]
            if not step.startswith(STEPS):
                continue
            if terminal or time.time() - shown > 15:
                shown = time.time()
                text = "  %s, %d s: %s" % (what, shown - started, step[:60])
                print("\r\033[K" + text if terminal else text, end="" if terminal else "\n", flush=True)
        code = process.wait()
    if terminal:
        print("\r\033[K", end="")
    return code, "".join(output)


def explain(output):
    """pip's failure as one sentence."""
    log = os.path.relpath(LOG, ROOT)
    if "No space left on device" in output:
        return ("the disk is full, the installation needs %d GB; free some space and run the same command again "
                "(log: %s)." % (NEEDED_GB, log))
    if any(sign in output for sign in NO_NETWORK):
        return ("the Python packages could not be downloaded, the package index cannot be reached; check the network "
                "and run the same command again, it resumes (log: %s)." % log)
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["no message"]
    errors = [line for line in lines if line.startswith("ERROR")] or [line for line in lines if "Error: " in line] or lines[-1:]
    return "pip could not install the packages: %s (log: %s)." % (errors[-1].replace("ERROR: ", "").rstrip("."), log)


def install():
    if not works("import pip, sys; assert sys.version_info[:2] == %r" % (sys.version_info[:2],)):
        make_venv()
    if os.path.exists(STAMP):
        os.remove(STAMP)
    with open(LOG, "w", encoding="utf-8") as log:
        log.write("Python %s\n" % sys.version)
    install_packages(["-r", REQUIREMENTS], "packages")
    install_packages(["--no-deps", "--no-build-isolation", "-e", "."], "lens")


def set_up():
    check_python()
    if complete():
        return
    check_disk()
    print("Setting up .venv (once; a few minutes, mostly the download of PyTorch)", flush=True)
    install()
    if not works(PROBE):  # an interruption can leave a package that pip takes for whole
        print("  the environment is damaged, making it anew", flush=True)
        make_venv()
        install()
        if not works(PROBE):
            raise SetupError("the packages were installed but cannot be imported; to see why: "
                             ".venv/bin/python -c '%s'." % PROBE)
    with open(STAMP + ".new", "w") as file:
        file.write(key())
    os.replace(STAMP + ".new", STAMP)


def main(arguments):
    if arguments == ["--suits"]:
        return 0 if suits() else 1
    try:
        if arguments == ["--check"]:
            check_python()
            check_disk()
            print("Python, venv and disk are fine; the environment is %s." % ("complete" if complete() else "not made yet"))
        else:
            set_up()
    except SetupError as error:
        print("\nlens: %s" % error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nlens: interrupted; run the same command again to resume.", file=sys.stderr)
        return 130
    except OSError as error:
        print("\nlens: .venv could not be written: %s." % error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
