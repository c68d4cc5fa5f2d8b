"""Sweeps on a cluster of real processes: what a death, a failure and Ctrl-C leave, and what the cluster costs."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import sweep_jobs
import torch

import lens
from lens.scale.sweep import Job, counterfact_jobs, local, reports, run
from lens.scale.sweep.cluster import _ctrl_c_waits

DOUBLES = [Job(f"double-{n}", "sweep_jobs:double", {"number": n}) for n in range(5)]

pytestmark = pytest.mark.slow


def test_a_cluster_gives_what_one_process_gives(cluster, client, tmp_path):
    here = run(DOUBLES, tmp_path / "here", progress=False)
    places = {"cluster": cluster, "client": client, "address": cluster.scheduler_address}
    for name, scheduler in places.items():
        there = run(DOUBLES, tmp_path / name, scheduler, progress=False)
        assert there.table() == here.table()
        assert {o.worker for o in there} <= set(client.nthreads()) and {o.worker for o in here} == {"here"}
        assert {p.name for p in (tmp_path / name).iterdir()} == {p.name for p in (tmp_path / "here").iterdir()}


def test_workers_of_this_machine_answer_only_who_has_their_credentials(tmp_path):
    pytest.importorskip("cryptography", reason="credentials need cryptography: pip install lens-book[sweep]")
    with local(1) as own:
        assert own.scheduler_address.startswith("tls://127.0.0.1:")
        assert [o.worker != "here" for o in run(DOUBLES[:1], tmp_path / "in", own, progress=False)] == [True]
        with pytest.raises(OSError, match="cannot be reached"):
            run(DOUBLES[:1], tmp_path / "out", own.scheduler_address, progress=False)


def test_a_worker_killed_in_mid_job_loses_nothing(masks, model, client, tmp_path):
    (job,) = jobs = masks((0,), steps=30)
    serial = run(jobs, tmp_path / "serial", progress=False)
    pids, checkpoint = client.run(os.getpid), tmp_path / "killed" / job.name / "checkpoint"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, jobs, tmp_path / "killed", client, progress=False)
        while not checkpoint.exists():
            assert not running.done()
            time.sleep(0.01)
        (worker,) = (address for address, keys in client.processing().items() if any(job.name in k for k in keys))
        os.kill(pids[worker], signal.SIGKILL)
        before = torch.load(checkpoint, weights_only=True)["history"]
        done = running.result(120)
    assert done.outcomes[0].attempts == 2 and done.outcomes[0].worker != worker
    assert done.table() == serial.table()
    killed, whole = (lens.mask.load(tmp_path / n / serial[job.name]["file"]) for n in ("killed", "serial"))
    assert killed.bits == whole.bits and len(killed.history) == 30
    kept = [row for row in killed.history if row in before]  # with the seconds that the dead worker measured
    assert 0 < len(kept) < 30 and kept == before[: len(kept)] and len(kept) >= len(before) - 1


ALONE = """
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster:
        print(cluster.scheduler_address, flush=True)
        input()
"""


def test_a_killed_scheduler_loses_what_was_running_and_the_same_call_goes_on_at_another(client, tmp_path):
    jobs = [Job(f"nap-{n}", "sweep_jobs:nap", {"seconds": 0.4, "number": n}) for n in range(6)]
    (script := tmp_path / "cluster.py").write_text(ALONE, encoding="utf-8")
    path = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    with subprocess.Popen([sys.executable, str(script)], env=path, **pipes) as scheduler, ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, jobs, tmp_path / "runs", scheduler.stdout.readline().strip(), progress=False)
        while not list((tmp_path / "runs").glob("*.json")):
            assert not running.done(), running.exception()
            time.sleep(0.01)
        scheduler.kill()
        with pytest.raises(RuntimeError, match="The scheduler is gone"):
            running.result(120)
    kept = {p.stem for p in (tmp_path / "runs").glob("*.json")}
    assert 1 <= len(kept) < 6
    done = run(jobs, tmp_path / "runs", client, progress=False)
    assert {o.job.name for o in done if not o.attempts} == kept
    assert [o.value["number"] for o in done] == list(range(6))


@pytest.mark.parametrize("die", [False, True])
def test_a_job_that_failed_or_died_is_tried_on_another_worker(client, tmp_path, die):
    job = Job("flaky", "sweep_jobs:fail_at_first", {"die": die})
    done = run([job, *DOUBLES], tmp_path, client, progress=False)
    first, second = sweep_jobs.tried(tmp_path / "flaky")
    assert first != second and done["flaky"] == 1 and not done.failed and len(done) == 6


def test_a_worker_on_which_every_job_fails_costs_none(client, tmp_path):
    bad = client.run(os.getpid).popitem()[1]
    jobs = [Job(f"nap-{n}", "sweep_jobs:nap_but_not_in", {"pid": bad}) for n in range(12)]
    done = run(jobs, tmp_path, client, retries=1, progress=False)
    assert not done.failed and {o.attempts for o in done} == {1, 2}


def test_what_fails_in_every_attempt_is_reported_and_the_rest_is_kept(client, tmp_path):
    deadly = Job("deadly", "sweep_jobs:fail_at_first", {"times": 9, "die": True})
    jobs = [Job("bad", "sweep_jobs:fail"), deadly, *DOUBLES]
    done = run(jobs, tmp_path, client, retries=1, progress=False)
    assert [o.job.name for o in done.failed] == ["bad", "deadly"] and len(done.table()) == 5
    bad, died = done.report().splitlines()
    assert bad == "bad failed in 2 attempts: RuntimeError: this never works"
    assert died.startswith("deadly failed in 2 attempts: 1 worker died with it, the last tcp://127.0.0.1:")
    assert len(sweep_jobs.tried(tmp_path / "deadly")) == 2
    assert [o.attempts for o in run(jobs[2:], tmp_path, client, progress=False)] == [0] * 5


@pytest.fixture
def ctrl_c():
    """Ctrl-C as Python has it, also where the tests were started by a shell that ignores it for them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("where", ["anywhere", "where Python loses it"])
def test_ctrl_c_keeps_what_is_finished_cancels_the_rest_and_the_same_call_goes_on(client, tmp_path, ctrl_c, where):
    jobs = [Job(f"nap-{n}", "sweep_jobs:nap", {"seconds": 0.4, "number": n}) for n in range(8)]
    first, here = threading.Event(), threading.main_thread()

    def watch():
        while not list(tmp_path.glob("*.json")):
            time.sleep(0.01)
        first.set()
        if where == "anywhere":
            signal.pthread_kill(here.ident, signal.SIGINT)

    def collecting(phase, info):  # an exception in a callback of the garbage collector goes nowhere
        if first.is_set() and threading.current_thread() is here:
            first.clear()
            signal.raise_signal(signal.SIGINT)

    watcher, often = threading.Thread(target=watch), gc.get_threshold()
    watcher.start()
    try:
        if where != "anywhere":
            gc.callbacks.append(collecting)
            gc.set_threshold(50)
        with pytest.raises(KeyboardInterrupt):
            run(jobs, tmp_path, client, progress=False)
    finally:
        gc.set_threshold(*often)
        if where != "anywhere":
            gc.callbacks.remove(collecting)
    watcher.join()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    kept = {p.stem for p in tmp_path.glob("*.json")}
    assert 1 <= len(kept) < 8
    done = run(jobs, tmp_path, client, progress=False)
    assert {o.job.name for o in done if not o.attempts} == kept
    assert [o.value["number"] for o in done] == list(range(8))


def test_a_result_that_cannot_be_written_ends_the_sweep_and_gives_ctrl_c_back(client, tmp_path, ctrl_c, monkeypatch):
    def full(*arguments):
        raise OSError("the disk is full")

    monkeypatch.setattr("lens.scale.sweep.store.Store.write", full)
    with pytest.raises(OSError, match="the disk is full") as held:  # its traceback holds the frames of the sweep
        run(DOUBLES, tmp_path, client, progress=False)
    assert held.traceback and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_does_not_wait(ctrl_c):
    with pytest.raises(KeyboardInterrupt), _ctrl_c_waits() as asked:
        signal.raise_signal(signal.SIGINT)
        assert asked.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        asked = "and the first one comes at the end"
    assert asked == "and the first one comes at the end"


def test_shards_on_workers_make_the_report_of_one_run(model, client, tmp_path):
    options = dict(entropy=False, perplexity=False, together=2)
    jobs = counterfact_jobs(model, ["none"], "validation", 2, limit=4, **options)
    report = reports(run(jobs, tmp_path, client, progress=False))["none"]
    records = lens.data.records("validation")[:4]
    whole = lens.evaluate.counterfact(lens.load(model), records, "none", progress=False, **options)
    assert [{**vars(row), "seconds": 0} for row in report.rows] == [{**vars(row), "seconds": 0} for row in whole.rows]


def test_workers_divide_the_processors_among_them(client, tmp_path):
    from dask.system import CPU_COUNT  # those that this process may use

    jobs = [Job("threads", "sweep_jobs:threads")]
    assert run(jobs, tmp_path, client, progress=False)["threads"] == max(1, CPU_COUNT // 2)


def test_the_cluster_costs_little_beside_the_jobs(client, tmp_path):
    warm = [Job(f"warm-{n}", "sweep_jobs:nap", {"seconds": 0.2}) for n in range(2)]
    jobs = [Job(f"nap-{n}", "sweep_jobs:nap", {"seconds": 0.2, "number": n}) for n in range(20)]
    run(warm, tmp_path, client, progress=False)
    begun = time.perf_counter()
    run(jobs, tmp_path, client, progress=False)
    assert time.perf_counter() - begun < 3 * 20 * 0.2 / 2  # the real measurement is of longer jobs


HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\n\r\n" + b"<html>400</html>" * 9


@pytest.fixture
def taken():
    """``taken(bytes)``: the address of a port where each caller gets these bytes, and then silence."""
    sockets = []

    def serve(says: bytes) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        sockets.append(server)

        def answer():
            with suppress(OSError):
                while True:
                    sockets.append(server.accept()[0])
                    sockets[-1].sendall(says)

        threading.Thread(target=answer, daemon=True).start()
        return f"tcp://127.0.0.1:{server.getsockname()[1]}"

    yield serve
    for one in sockets:
        one.close()


def test_what_is_no_scheduler_is_named_in_time(monkeypatch, refuses, tmp_path, cluster, client, taken):
    monkeypatch.setattr("lens.scale.sweep.connecting.PATIENCE", 1)
    worker, dashboard = next(iter(client.nthreads())), f"tcp://{cluster.dashboard_link.split('/')[2]}"
    nothing, other = "nothing answered .* within 1 sec", "what answers is no scheduler"
    places = {"tcp://127.0.0.1:9": nothing, taken(b""): nothing, taken(HTTP): other, dashboard: f"{nothing}|{other}"}
    for address, words in (places | {worker: "a worker answers"}).items():
        begun = time.perf_counter()
        with refuses(OSError, f"The scheduler '{address}' cannot be reached .({words})"):
            run(DOUBLES, tmp_path, address, progress=False)
        assert time.perf_counter() - begun < 5


@pytest.mark.parametrize("place", ["", "nowhere", "tcp://10.0.0.1:65536", "tcp://10.0.0.1:-1"])
def test_what_can_be_no_address_is_named_before_anybody_is_asked(place, refuses, tmp_path):
    with refuses(ValueError, f"scheduler is '{place}': give an address with a port"):
        run(DOUBLES, tmp_path, place, progress=False)


def test_after_a_wrong_address_the_command_ends_at_once(taken):
    code = (
        "import sys, time, lens.scale.sweep.connecting as connecting\n"
        "from lens.__main__ import main\n"
        "connecting.PATIENCE = 1\n"
        "failed = main(['sweep', 'masks', '--out', 'nowhere', '--scheduler', sys.argv[1]])\n"
        "print(time.time())\n"
        "sys.exit(failed)"
    )
    for says in (b"", HTTP):
        done = subprocess.run([sys.executable, "-c", code, taken(says)], capture_output=True, text=True, timeout=60)
        assert time.time() - float(done.stdout) < 5 and done.returncode == 1
        assert done.stderr.startswith("lens: The scheduler") and done.stderr.count("\n") == 1


def test_without_distributed_the_sentence_says_how_to_install_it(monkeypatch, refuses, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with refuses(ImportError, r"pip install lens-book\[sweep\]"):
        run(DOUBLES, tmp_path, "tcp://127.0.0.1:9", progress=False)
    for workers in (0, 10**8):
        with refuses(ValueError, f"workers is {workers}"), lens.sweep.local(workers):
            pass
    assert len(run(DOUBLES, tmp_path, progress=False)) == 5


def test_without_credentials_there_are_no_workers_here(monkeypatch, refuses):
    pytest.importorskip("distributed")
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with refuses(ImportError, r"the package cryptography: .*pip install lens-book\[sweep\]"), lens.sweep.local(1):
        pass
