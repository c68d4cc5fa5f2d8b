"""Jobs, their results on the disk, and the model that a worker keeps."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import sweep_jobs
import torch

import lens
from lens.scale.sweep import Job, counterfact_jobs, mask_jobs, opened, reports, run
from lens.scale.sweep.models import _kept
from lens.scale.sweep.running import perform

DOUBLES = [Job(f"double-{n}", "sweep_jobs:double", {"number": n}) for n in (3, 1, 2)]


@pytest.fixture
def calls(monkeypatch):
    """The numbers that ``double`` is called with here."""
    seen = []
    monkeypatch.setattr(sweep_jobs, "double", lambda number: seen.append(number) or {"number": number})
    return seen


def test_a_job_is_what_it_calls_with_what_and_its_name_is_only_a_name():
    job = Job("a", "sweep_jobs:double", {"number": 1, "more": (1, 2)})
    assert job.arguments["more"] == [1, 2]  # as every machine reads it
    same = Job("a", "sweep_jobs:double", {"more": [1, 2], "number": 1})
    assert job == same and hash(job) == hash(same) and len({job, same}) == 1
    assert job.identity == Job("b", job.function, job.arguments).identity
    others = [Job("a", "sweep_jobs:nap", job.arguments), Job("a", job.function, {"number": 2, "more": [1, 2]})]
    assert len({job.identity, *(other.identity for other in others)}) == 3


def test_another_version_of_lens_is_another_job(monkeypatch):
    before = DOUBLES[0].identity
    monkeypatch.setattr("lens.scale.sweep.job.VERSION", "9.9")
    assert DOUBLES[0].identity != before


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("a/b", "m:f"), "a job's name is a file's"),
        ((".hidden", "m:f"), "a job's name is a file's"),
        (("a", "m.f"), "'package.module:function'"),
        (("a", len), "'package.module:function'"),
        (("a", "m:f", {"x": {1, 2}}), "not fit for JSON"),
        (("a", "m:f", {1: 2}), "not fit for JSON"),
    ],
)
def test_what_is_no_job_is_refused(arguments, words, refuses):
    with refuses(ValueError, f"(?i){words}"):
        Job(*arguments)


def test_results_are_in_the_order_of_the_jobs_and_their_table_is_flat(tmp_path):
    done = run(DOUBLES, tmp_path, progress=False)
    assert [outcome.value["twice"] for outcome in done] == [6, 2, 4] and len(done) == 3 and not done.failed
    assert done.table()[0] == {"job": "double-3", "number": 3, "twice": 6} and done["double-1"]["twice"] == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == [".sweep", *(f"double-{n}.json" for n in (1, 2, 3))]


def test_what_is_done_is_not_done_again_and_what_it_gave_is_read(tmp_path, calls):
    first = run(DOUBLES[:2], tmp_path, progress=False)
    assert calls == [3, 1] and [outcome.attempts for outcome in first] == [1, 1]
    done = run(DOUBLES, tmp_path, progress=False)
    assert calls == [3, 1, 2] and [outcome.attempts for outcome in done] == [0, 0, 1]
    assert [o.value for o in done][:2] == [o.value for o in first]


def test_half_written_and_damaged_files_never_count(tmp_path, calls):
    run(DOUBLES, tmp_path, progress=False)
    whole = (tmp_path / "double-1.json").read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"[]", b"\xff", whole.replace(b'"value"', b'"val"')):
        (tmp_path / "double-1.json").write_bytes(content)
        (tmp_path / f".double-1.json.{len(content)}").write_bytes(whole)  # what a killed process leaves
        calls.clear()
        run(DOUBLES, tmp_path, progress=False)
        assert calls == [1] and json.loads((tmp_path / "double-1.json").read_text())["value"] == {"number": 1}


def test_a_result_of_other_arguments_is_refused_before_anything_runs(tmp_path, calls, refuses):
    run(DOUBLES[:1], tmp_path, progress=False)
    kept = (tmp_path / "double-3.json").read_bytes()
    other = Job("double-3", "sweep_jobs:double", {"number": 4})
    with refuses(ValueError, r"double-3.json is another job's \(number was 3, and is now 4\): give another folder"):
        run([*DOUBLES[1:], other], tmp_path, progress=False)
    assert calls == [3] and (tmp_path / "double-3.json").read_bytes() == kept


@pytest.mark.parametrize(
    "jobs, options, words",
    [
        ([DOUBLES[0], DOUBLES[0]], {}, "Two jobs have the name 'double-3'"),
        (["double"], {}, "Got 'double' for a job"),
        (DOUBLES, {"retries": -1}, "retries is -1"),
        (DOUBLES, {"scheduler": 3}, "Got 3 for a scheduler"),
    ],
)
def test_what_cannot_run_is_refused(jobs, options, words, refuses, tmp_path):
    with refuses(ValueError, words):
        run(jobs, tmp_path, progress=False, **options)


def test_a_folder_that_is_a_file_is_refused(tmp_path, refuses):
    (tmp_path / "file").touch()
    with refuses(ValueError, "this is a file"):
        run(DOUBLES, tmp_path / "file", progress=False)


def test_failed_jobs_are_tried_again_then_reported_and_stop_nothing(tmp_path, refuses):
    jobs = [Job("bad", "sweep_jobs:fail", {"words": "no\nluck"}), *DOUBLES, Job("flaky", "sweep_jobs:fail_at_first")]
    done = run(jobs, tmp_path, retries=1, progress=False)
    assert [o.job.name for o in done.failed] == ["bad"] and done["flaky"] == 1 and len(done.table()) == 4
    assert done.report() == "bad failed in 2 attempts: RuntimeError: no luck"
    assert "raise RuntimeError" in done.failed[0].traceback and not (tmp_path / "bad.json").exists()
    with pytest.raises(ValueError, match="it failed: RuntimeError: no luck"):
        done["bad"]
    again = run(jobs, tmp_path, retries=0, progress=False)
    assert [outcome.attempts for outcome in again] == [1, 0, 0, 0, 0]


def test_a_job_that_failed_is_tried_again_behind_the_others(tmp_path, monkeypatch):
    seen = []

    def fails_first(number):
        seen.append(number)
        if len(seen) == 1:
            raise OSError("the disk was full.")
        return number

    monkeypatch.setattr(sweep_jobs, "fails_first", fails_first, raising=False)
    jobs = [Job(f"job-{n}", "sweep_jobs:fails_first", {"number": n}) for n in (1, 2)]
    done = run(jobs, tmp_path, progress=False)
    assert seen == [1, 2, 1] and [o.attempts for o in done] == [2, 1] and [o.value for o in done] == [1, 2]


@pytest.mark.parametrize(
    "function, words",
    [
        ("no_such_module:f", "cannot be imported here"),
        ("sweep_jobs:no_such_function", "cannot be imported here"),
        ("sweep_jobs:SETS", "is no function but a tuple"),
        ("sweep_jobs:leave", "not fit for JSON"),
    ],
)
def test_a_job_that_cannot_be_done_says_why(function, words, tmp_path):
    done = run([Job("a", function)], tmp_path, retries=0, progress=False)
    assert words in done.report() and done.report().count("\n") == 0


def test_ctrl_c_keeps_what_is_finished(tmp_path, monkeypatch, calls):
    def stop():
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep_jobs, "stop", stop, raising=False)
    with pytest.raises(KeyboardInterrupt):
        run([DOUBLES[0], Job("stop", "sweep_jobs:stop"), DOUBLES[1]], tmp_path, progress=False)
    assert [p.name for p in tmp_path.glob("*.json")] == ["double-3.json"] and calls == [3]


def test_a_worker_that_does_not_see_the_folder_or_has_another_lens_says_so(tmp_path):
    job = Job("leave", "sweep_jobs:leave")
    run([], tmp_path, progress=False)
    elsewhere = perform(job, tmp_path, "another mark", lens.__version__)
    assert "does not see the sweep's folder" in elsewhere.error and not (tmp_path / "leave").exists()
    assert "made with lens 0.0" in perform(DOUBLES[0], tmp_path, "", "0.0").error


def test_two_attempts_at_a_job_never_run_at_once(tmp_path, monkeypatch):
    inside, most = [], []

    def slow(folder):
        inside.append(folder)
        most.append(len(inside))
        time.sleep(0.05)
        inside.pop()

    monkeypatch.setattr(sweep_jobs, "slow", slow, raising=False)
    run([], tmp_path, progress=False)
    mark = (tmp_path / ".sweep").read_text()
    with ThreadPoolExecutor(4) as pool:
        job = Job("slow", "sweep_jobs:slow")
        found = list(pool.map(lambda _: perform(job, tmp_path, mark, lens.__version__), range(4)))
    assert most == [1] * 4 and not any(one.error for one in found)


def borrowed(name, fingerprint):
    with opened(name, fingerprint=fingerprint) as lm:
        return lm


def test_the_model_is_kept_lent_to_one_thread_at_a_time_and_opened_anew_after_an_error(model, refuses):
    with opened(model) as first:
        waiting = ThreadPoolExecutor(1).submit(borrowed, model, first.fingerprint)
        time.sleep(0.05)
        assert not waiting.done()
    assert waiting.result(10) is first
    with pytest.raises(ZeroDivisionError), opened(model) as same:
        1 / (same is not first)
    assert not _kept
    with refuses(ValueError, "is another one here"), opened(model, fingerprint="0" * 64):
        pass


def test_masks_have_a_job_for_each_target_seed_and_setting(model, refuses):
    jobs = [job for lr in (0.1, 0.2) for job in mask_jobs(model, ["building", "sun"], (0, 1), settings={"lr": lr})]
    assert jobs[3].name == "sun-weight-1-lr=0.1" and len({job.identity for job in jobs}) == 8
    assert jobs[3].arguments["config"]["lr"] == 0.1 and jobs[3].arguments["fingerprint"] == lens.load(model).fingerprint
    for arguments, words in [
        ((["castle"],), "no TargetKG 'castle'"),
        ((["sun"], (0,), "layer"), "'layer'"),
        ((["sun"], (0,), "weight", {"luck": 1}), "no setting 'luck'"),
        ((["sun"], (0,), "weight", {"seed": 1}), "said by seeds"),
    ]:
        names = ("targets", "seeds", "granularity", "settings")
        with refuses(ValueError, words):
            mask_jobs(model, **dict(zip(names, arguments)))


def test_a_mask_job_gives_what_train_and_evaluate_give(masks, model, tmp_path):
    (job,) = masks((1,), steps=2)
    done = run([job], tmp_path, progress=False)
    lm, kg = lens.load(model), lens.data.knowledge("building")
    config = lens.mask.Config(**job.arguments["config"])
    wanted = lens.mask.train(lm, kg.target, kg.control, kg.text, config, progress=False)
    found = lens.mask.load(tmp_path / done[job.name]["file"], lm)
    assert found.bits == wanted.bits and found.about["target"] == "building"
    rows = lens.evaluate.knowledge(lm, kg, wanted, random=1, progress=False).rows()
    assert [{key: row[key] for key in rows[0]} for row in done.table()] == rows
    assert done.table()[0]["seed"] == 1 and done.table()[0]["steps"] == 2
    left = [tmp_path / job.name / f"{job.name}.safetensors"]
    assert sorted(left[0].parent.iterdir()) == left

    (tmp_path / f"{job.name}.json").unlink()  # as a process that ended between the mask and its result
    (left[0].parent / "checkpoint").touch()
    made = left[0].stat().st_mtime_ns
    assert run([job], tmp_path, progress=False).table() == done.table()
    assert left[0].stat().st_mtime_ns == made and sorted(left[0].parent.iterdir()) == left


def test_a_mask_of_other_facts_is_not_taken_up(model, tmp_path):
    def jobs(*facts):
        file = tmp_path / "mine.json"
        given = [{"head": h, "tail": t, "best_gpt2_input": f"A {h} is a", "best_gpt2_label": t} for h, t in facts]
        file.write_text(json.dumps(given))
        return mask_jobs(model, [file], settings={"steps": 2}, random=0)

    (job,), out = jobs(("cafe", "restaurant")), tmp_path / "out"
    run([job], out, progress=False)
    (out / f"{job.name}.json").unlink()  # stopped while it measured
    file = out / job.name / f"{job.name}.safetensors"
    first = file.stat().st_mtime_ns
    run([job], out, progress=False)
    assert file.stat().st_mtime_ns == first
    (out / f"{job.name}.json").unlink()
    (other,) = jobs(("piano", "instrument"))
    run([other], out, progress=False)
    assert file.stat().st_mtime_ns > first and lens.mask.load(file).about["digest"] == other.arguments["digest"]


def test_a_folder_that_was_written_anew_is_opened_anew(model, tmp_path):
    with opened(model) as lm:
        first = lm.fingerprint
    changed = lens.load(model)
    with torch.no_grad():
        changed.weight(0, "ff2").mul_(1.5)
    changed.model.save_pretrained(model)
    with opened(model) as lm:
        assert lm.fingerprint == changed.fingerprint != first


FEW = dict(records="validation", limit=5, entropy=False, perplexity=False)


def without_seconds(report):
    return [{**vars(row), "seconds": None} for row in report.rows]


def test_shards_make_the_report_of_one_run(model, tmp_path):
    jobs = counterfact_jobs(model, ["shift", "none"], shards=2, together=2, **FEW)
    assert [(j.arguments["first"], j.arguments["end"]) for j in jobs] == [(0, 4), (4, 5)] * 2
    merged = reports(run(jobs, tmp_path, progress=False))
    records = lens.data.records("validation")[:5]
    for editor in ("shift", "none"):
        options = dict(together=2, entropy=False, perplexity=False, progress=False)
        whole = lens.evaluate.counterfact(lens.load(model), records, editor, **options)
        assert without_seconds(merged[editor]) == without_seconds(whole)
        assert merged[editor].header["settings"] == whole.header["settings"] and not whole.errors


def test_shards_are_of_one_size_and_whole_batches(model):
    jobs = counterfact_jobs(model, "none", "test", 3, entropy=False)
    sizes = [job.arguments["end"] - job.arguments["first"] for job in jobs]
    together = jobs[0].arguments["options"]["together"]
    assert sum(sizes) == 400 and max(sizes) - min(sizes) <= together and not any(s % together for s in sizes[:-1])


@pytest.mark.parametrize(
    "options, words",
    [
        ({"shards": 0}, "shards is 0"),
        ({"editors": ["magic"]}, "no editor 'magic'"),
        ({"settings": {"rome": {}}}, "settings for 'rome', which is none of the editors shift"),
        ({"settings": {"shift": {"luck": 1}}}, "no setting 'luck'"),
    ],
)
def test_shards_that_cannot_be_are_refused(options, words, model, refuses):
    with refuses(ValueError, words):
        counterfact_jobs(model, **options)
