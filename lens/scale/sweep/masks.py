"""How are many masks trained?  A job for each TargetKG and seed trains one, from its checkpoint, and measures it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from lens import data, evaluate, mask
from lens.given import door, several
from lens.scale.sweep.job import Job
from lens.scale.sweep.models import check_same, digest, opened, place_of

LONGEST = 60
"""Characters of a job's name that may say its settings; twelve digits stand for more."""


@door(device=None, seeds=lambda name, value: several(name, value, "a whole number", lambda item: True))
def mask_jobs(
    model: str = "mini",
    targets: Sequence[str | Path] | None = None,
    seeds: Iterable[int] = (0,),
    granularity: str = "weight",
    *,
    settings: Mapping | None = None,
    random: int = 3,
    wording: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> list[Job]:
    """A job for each of ``targets`` (default: every built-in TargetKG; or files of facts) and each of ``seeds``.

    A job does what ``lens.mask.train`` and ``lens.evaluate.knowledge`` do, with the model's own settings
    (``lens.mask.config_for``) but those given in ``settings``, and ``random`` masks to compare with.  Its value has the
    ``rows`` of the evaluation, each with its seed, granularity and the settings given, and ``file``, the subnetwork's,
    from the sweep's folder on.  Jobs of other settings have other names, so lists may be added.  The model is opened
    here, for its fingerprint.

    Raises ``ValueError`` for a target, granularity or setting that does not exist.

    >>> [job.name for job in mask_jobs("mini", ["building"], seeds=(0, 1), settings={"lr": 0.1})]
    ['building-weight-0-lr=0.1', 'building-weight-1-lr=0.1']
    """
    settings = dict(settings or {})
    for name in {"seed", "granularity"} & settings.keys():
        raise ValueError(f"{name} is no setting here: it is said by seeds or granularity, and is in the job's name.")
    where = {"model": place_of(model), "device": device, "dtype": dtype}
    built_in = data.target_kgs(every=True)
    given = [str(target) if str(target) in built_in else place_of(target) for target in targets or ()]
    kgs = {target: data.knowledge(target, model=wording) for target in given or data.target_kgs()}
    with opened(**where) as lm:
        where["fingerprint"] = lm.fingerprint
        configs = {seed: mask.config_for(lm, granularity, seed=seed, **settings) for seed in seeds}
    suffix = "".join(f"-{key}={_word(value)}" for key, value in settings.items())
    if len(suffix) > LONGEST:
        suffix = f"-{digest(settings)[:12]}"
    jobs = []
    for target, kg in kgs.items():
        about = where | {"target": target, "wording": wording, "digest": digest(kg)}
        about |= {"random": random, "given": settings}
        for seed, config in configs.items():
            name = f"{_word(kg.name)}-{granularity}-{seed}{suffix}"
            jobs.append(Job(name, f"{__name__}:train_and_evaluate", about | {"config": asdict(config)}))
    return jobs


def train_and_evaluate(folder: Path, *, target, wording, digest, config, random, given, **where) -> dict:
    """One job of ``mask_jobs``; ``folder`` keeps the checkpoint while it trains, and then the subnetwork."""
    file, checkpoint = folder / f"{folder.name}.safetensors", folder / "checkpoint"
    config = mask.Config(**config)
    kg = data.knowledge(target, model=wording)
    check_same(kg, digest, target)
    with opened(**where) as lm:
        try:  # an attempt that came as far as this is taken up from here
            found = mask.load(file, lm)
        except OSError:
            found = None
        if found is None or (found.config, found.about.get("digest", digest)) != (config, digest):
            found = mask.train(lm, kg.target, kg.control, kg.text, config, checkpoint=checkpoint, progress=False)
            found = replace(found, about=found.about | {"target": target, "wording": wording, "digest": digest})
            mask.save(found, file)
        checkpoint.unlink(missing_ok=True)  # also that of an attempt which ended just before this
        rows = evaluate.knowledge(lm, kg, found, random=random, progress=False).rows()
    about = {"granularity": config.granularity, "seed": config.seed} | given
    return {"rows": [about | row for row in rows], "file": f"{folder.name}/{file.name}"}


def _word(value: object) -> str:
    """A value as a part of a file's name."""
    text = value if isinstance(value, str) else json.dumps(value)
    return re.sub(r"[^\w.=+-]+", "_", text, flags=re.ASCII).strip("_")
