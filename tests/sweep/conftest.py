"""A cluster of real processes on this machine, and a model in a folder that they can open."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch


@pytest.fixture(scope="session")
def cluster():
    """Two workers, each a process of its own; one that dies is replaced.  Its address lets anyone in, as a site's does."""
    for package in ("distributed", "cryptography"):
        pytest.importorskip(package, reason=f"clusters need {package}: pip install lens-book[sweep]")
    from distributed import Security

    from lens.scale.sweep import connecting

    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Security, "temporary", Security)
            found = stack.enter_context(connecting.local(2))
        yield found


@pytest.fixture
def client(cluster):
    """A client of the cluster, with both workers there."""
    from lens.scale.sweep.connecting import connected

    with connected(cluster) as found:
        found.wait_for_workers(2, timeout=120)
        yield found


@pytest.fixture(scope="session")
def model(tiny, tmp_path_factory):
    """The folder of a tiny random model that reads whole paragraphs letter by letter."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    lm = tiny("gpt2", torch.float32, n_positions=1024)
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def masks(model, monkeypatch):
    """``masks(seeds, steps)``: real jobs of ``mask_jobs``, on six prompts of each set."""
    from dataclasses import replace

    import sweep_jobs

    import lens

    monkeypatch.setattr(lens.data, "knowledge", sweep_jobs.small_knowledge())

    def jobs(seeds, steps: int):
        settings = {"steps": steps, "check": 1, "targets": 4, "controls": 4, "texts": 1, "tokens": 12}
        made = lens.sweep.mask_jobs(model, ["building"], seeds, settings=settings, random=1)
        return [replace(job, function="sweep_jobs:small_mask") for job in made]

    return jobs
