"""Local worker processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from evaluators.testing.pool import CHECKS, SURVIVAL_CHECKS, Check, endure
from evaluators.testing.scripted import Scripted, deadly_setup, is_alive
from evaluators.workers import Failure, Setup, WorkerPool, WorkerSettings, make_pool
from kinship.errors import WorkersFailed

# Tests that start workers share the cores with each other, not with tests that measure their patience.
pytestmark = pytest.mark.xdist_group("workers")


def make_local(setup: Setup, **settings: Any) -> WorkerPool:
    return make_pool(WorkerSettings(kind="local", **({"count": 2} | settings)), setup)


@pytest.mark.parametrize("check", [*CHECKS, *SURVIVAL_CHECKS], ids=lambda check: check.__name__)
def test_conformance(check: Check, tmp_path: Path) -> None:
    check(make_local, tmp_path)


def the_failure(pool: WorkerPool, payload: Any) -> Failure:
    [(_, outcome)] = pool.run([payload])
    assert isinstance(outcome, Failure)
    return outcome


def test_output_is_kept_from_the_terminal_and_shown_in_failures(capfd: pytest.CaptureFixture[str]) -> None:
    with make_local(Scripted(), attempts=1) as pool:
        assert "before the exit" in the_failure(pool, ("exit", 3)).traceback
        segfault = the_failure(pool, ("kill_itself", signal.SIGSEGV))
        assert "in kill_itself" in segfault.traceback
        assert "SIGSEGV" in segfault.message
        list(pool.run([("bug", "prints too")] * 4))
    assert capfd.readouterr() == ("", "")


def test_output_of_earlier_payloads_is_not_blamed_on_later_ones() -> None:
    with make_local(Scripted(), count=1, attempts=1) as pool:
        list(pool.run([("bug", "prints a line")]))
        assert the_failure(pool, ("kill_itself", signal.SIGKILL)).traceback == ""


def test_a_hung_worker_tells_where() -> None:
    with make_local(Scripted(), attempts=1, hang_seconds=1.0) as pool:
        assert "scripted.py" in the_failure(pool, ("sleep", 3600)).traceback


def test_a_deadly_setup_tells_what_it_said() -> None:
    with make_local(deadly_setup) as pool, pytest.raises(WorkersFailed, match=r"exit code 9\nthe founder is too large"):
        list(pool.run([1]))


def test_each_worker_has_its_device_threads_and_folder() -> None:
    names = ["CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "KINSHIP_THREADS", "TMPDIR"]
    with make_local(Scripted(), devices=(3, "GPU-7"), threads=5) as pool:
        seen = seen_by_both(pool, names)
    devices, openmp, kinship, folders = zip(*seen, strict=True)
    assert set(devices) == {"3", "GPU-7"}
    assert set(openmp) == set(kinship) == {"5"}
    assert len(set(folders)) == 2
    assert not any(Path(folder).exists() for folder in folders)


def seen_by_both(pool: WorkerPool, names: list[str]) -> set[tuple[str, ...]]:
    seen: set[tuple[str, ...]] = set()
    while len(seen) < 2:
        seen |= {tuple(outcome) for _, outcome in pool.run([("environment", names)] * 20)}
    return seen


def test_a_pool_runs_one_thing_at_a_time_until_it_is_closed() -> None:
    with make_local(Scripted()) as pool:
        first = pool.run([("square", 1), ("square", 2)])
        next(first)
        with pytest.raises(RuntimeError, match="one sequence"):
            next(pool.run([("square", 3)]))
    with pytest.raises(RuntimeError, match="closed"):
        next(pool.run([("square", 3)]))


def test_processes_that_a_hung_worker_started_end_with_it(tmp_path: Path) -> None:
    with make_local(Scripted(), count=1, attempts=1, hang_seconds=1.0) as pool:
        assert the_failure(pool, ("hang_with_child", str(tmp_path / "child"))).kind == "hung"
    wait_until_gone([int((tmp_path / "child").read_text())])


PARENT = """
import json, sys
from evaluators.workers import WorkerSettings, make_pool
from evaluators.testing.scripted import Scripted

with make_pool(WorkerSettings(kind="local", count=3), Scripted()) as pool:
    numbers = set()
    while len(numbers) < 3:
        numbers |= {number for _, number in pool.run([("number", None)] * 9)}
    print(json.dumps(sorted(numbers)), flush=True)
    list(pool.run([("sleep", 3600), ("hang_with_child", sys.argv[1])]))
"""


@pytest.mark.parametrize("deadly", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_parent(deadly: signal.Signals, tmp_path: Path) -> None:
    child, temporary = tmp_path / "child", tmp_path / "temporary"
    temporary.mkdir()
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(child)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(temporary)},
    )
    assert parent.stdout is not None
    numbers = json.loads(parent.stdout.readline())
    while not child.exists():
        time.sleep(0.05)
    parent.send_signal(deadly)
    _, errors = parent.communicate(timeout=60)
    assert parent.returncode == -deadly or "KeyboardInterrupt" in errors
    wait_until_gone([*numbers, int(child.read_text())])
    assert not list(temporary.iterdir())


def wait_until_gone(numbers: list[int]) -> None:
    end = time.monotonic() + 60
    while alive := [number for number in numbers if is_alive(number)]:
        assert time.monotonic() < end, f"{alive} live on"
        time.sleep(0.05)


def test_a_crash_is_seen_although_a_forked_process_holds_the_connection(tmp_path: Path) -> None:
    with make_local(Scripted(), count=1, attempts=1, hang_seconds=None) as pool:
        assert the_failure(pool, ("exit_with_fork", 5)).message == "its worker ended with exit code 5"


def test_workers_killed_again_and_again(tmp_path: Path) -> None:
    assert endure(make_local, tmp_path, payloads=60, seconds=0.3) >= 2


@pytest.mark.soak
def test_workers_killed_very_often(tmp_path: Path) -> None:
    assert endure(make_local, tmp_path, payloads=200, seconds=2.0) >= 5
