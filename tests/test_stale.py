"""Is a kernel that is older than its packages refused before anything heavy?"""

from __future__ import annotations

from importlib.metadata import version
from types import SimpleNamespace

import pytest

from lens.course import stale


def test_a_package_changed_under_the_running_kernel_asks_for_a_restart(refuses):
    with refuses(ImportError, rf"^numpy 1\.0 is loaded, but {version('numpy')} .*restart the kernel"):
        stale.refuse({"numpy": SimpleNamespace(__version__="1.0")})


@pytest.mark.parametrize(
    "loaded",
    [
        {},
        {"numpy": SimpleNamespace(__version__=version("numpy"))},
        {
            "torch": SimpleNamespace(__version__=version("torch").partition("+")[0] + "+cu999")
        },  # another build, no other version
        {"numpy": SimpleNamespace()},
        {"somebody": SimpleNamespace(__version__="1.0")},
    ],
)
def test_what_is_loaded_as_installed_is_let_through(loaded):
    stale.refuse(loaded)


def test_a_package_without_metadata_is_let_through(monkeypatch):
    def missing(name):
        raise stale.PackageNotFoundError(name)

    monkeypatch.setattr(stale, "version", missing)
    stale.refuse({"numpy": SimpleNamespace(__version__="1.0")})
