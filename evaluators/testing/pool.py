"""What every pool of workers has to do, as checks that anyone who writes a pool can run over it.

Each check takes ``make(setup, **settings)``, which makes a pool that keeps to the given fields of `WorkerSettings`, and
an empty folder that the workers can reach. `CHECKS` hold for any pool, `SURVIVAL_CHECKS` for pools whose workers are
processes of their own on this machine (some are killed by their number). With pytest:

    @pytest.mark.parametrize("check", [*CHECKS, *SURVIVAL_CHECKS])
    def test_conformance(check, tmp_path):
        check(my_make, tmp_path)
"""

import math
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

from evaluators.testing.scripted import (
    CountedSetup,
    Scripted,
    broken_setup,
    deadly_setup,
    hanging_setup,
    is_alive,
    refusing_setup,
)
from evaluators.workers.base import Failure, Setup, WorkerPool
from kinship.errors import InvalidConfig, MalformedCheckpoint, WorkersFailed

E = TypeVar("E", bound=Exception)
MakePool = Callable[..., AbstractContextManager[WorkerPool]]
Check = Callable[[MakePool, Path], None]


def _all(pool: WorkerPool, *payloads: Any) -> list[Any]:
    """Results in the order of payloads; each must come exactly once."""
    pairs = list(pool.run(payloads))
    assert sorted(index for index, _ in pairs) == list(range(len(payloads)))
    return [outcome for _, outcome in sorted(pairs, key=lambda pair: pair[0])]


def _require_failure(outcome: Any, kind: str, attempts: int) -> Failure:
    assert isinstance(outcome, Failure), outcome
    assert (outcome.kind, outcome.attempts) == (kind, attempts), outcome
    return outcome


def _standard(make: MakePool, setup: Setup | None = None, **settings: Any) -> AbstractContextManager[WorkerPool]:
    """Most checks use the same settings and setup, so that a pool slow to start may be shared between them."""
    return make(setup or Scripted(), **({"attempts": 2, "hang_seconds": 2.0} | settings))


def check_results(make: MakePool, folder: Path) -> None:
    """Every payload gets its own result, in whatever order they complete."""
    with _standard(make) as pool:
        payloads = [("square", 1.5 * number) for number in range(20)]
        payloads[0] = ("sleep", 0.2)
        assert _all(pool, *payloads) == [0.2, *(2.25 * number * number for number in range(1, 20))]


def check_nothing_to_do(make: MakePool, folder: Path) -> None:
    """No payloads, no results."""
    with _standard(make) as pool:
        assert list(pool.run([])) == []


def check_fewer_payloads_than_workers(make: MakePool, folder: Path) -> None:
    """One payload."""
    with _standard(make) as pool:
        assert _all(pool, ("square", 3)) == [9]


def check_size(make: MakePool, folder: Path) -> None:
    """A pool has workers."""
    with _standard(make) as pool:
        assert pool.size >= 1


def check_no_number(make: MakePool, folder: Path) -> None:
    """NaN and infinity are results like others: whether they will do is for whoever scores to say."""
    with _standard(make) as pool:
        nan, infinity, one = _all(pool, ("square", math.nan), ("square", -math.inf), ("square", 1.0))
        assert math.isnan(nan)
        assert (infinity, one) == (math.inf, 1.0)


def check_none_is_a_result(make: MakePool, folder: Path) -> None:
    """None does not stand for anything else."""
    with _standard(make) as pool:
        assert _all(pool, ("nothing", 0), ("square", 2)) == [None, 4]


def check_raised(make: MakePool, folder: Path) -> None:
    """An error comes back with its message and traceback, once, and costs only its own payload."""
    with _standard(make) as pool:
        bug, failed, left, fine = _all(pool, ("bug", "by zero"), ("fail", "no number"), ("leave", 3), ("square", 3))
        assert fine == 9
        assert _require_failure(bug, "raised", 1).message == "ZeroDivisionError: by zero"
        assert "in bug" in bug.traceback
        assert _require_failure(failed, "raised", 1).message == "no number"
        assert "EvaluationFailed" in failed.traceback
        _require_failure(left, "raised", 1)


def check_memory_error(make: MakePool, folder: Path) -> None:
    """A worker that may not have the memory it asks for says so, and works on."""
    with _standard(make) as pool:
        greedy, fine = _all(pool, ("allocate", 1 << 40), ("square", 3))
        assert "MemoryError" in _require_failure(greedy, "raised", 1).traceback
        assert fine == 9


def check_retry_raised(make: MakePool, folder: Path) -> None:
    """Where that is asked for, an error is met by another try."""
    with _standard(make, retry_raised=True) as pool:
        once, always = _all(pool, ("bug_until", str(folder / "once")), ("bug", "again"))
        assert once == "well"
        _require_failure(always, "raised", 2)


def check_setup_once(make: MakePool, folder: Path) -> None:
    """Workers stay as they are from run to run: each is set up once."""
    with _standard(make, CountedSetup(str(folder))) as pool:
        outcomes = [outcome for _ in range(3) for outcome in _all(pool, *range(10))]
        assert [payload for payload, _ in outcomes] == [*range(10)] * 3
        assert 1 <= len(list(folder.iterdir())) <= pool.size
        assert len({process for _, process in outcomes}) <= pool.size


def check_setup_raises(make: MakePool, folder: Path) -> None:
    """A setup that raises is an error of the whole pool, with an error meant for users as its cause."""
    _require_setup_failure(make, broken_setup, "no such founder")
    error = _require_setup_failure(make, refusing_setup, "is no checkpoint")
    assert isinstance(error.__cause__, MalformedCheckpoint)
    assert error.__cause__.hint == "Download it again."


def check_left_early(make: MakePool, folder: Path) -> None:
    """An iteration left early does not leak into the next."""
    with _standard(make) as pool:
        for _ in pool.run([("square", 1), ("square", 2), ("sleep", 0.3), ("square", 4), ("square", 5), ("square", 6)]):
            break
        assert _all(pool, ("square", 7), ("square", 8), ("square", 9)) == [49, 64, 81]


def check_unsendable(make: MakePool, folder: Path) -> None:
    """Payloads and results that cannot travel are failures of their own."""
    with _standard(make) as pool:
        there, back, fine = _all(pool, ("square", lambda: None), ("unpicklable", None), ("square", 3))
        assert "pickle" in _require_failure(there, "raised", 1).message
        assert "pickle" in _require_failure(back, "raised", 1).message
        assert fine == 9


def check_unsendable_setup(make: MakePool, folder: Path) -> None:
    """A setup that cannot travel is refused."""

    def begin() -> None:
        with _standard(make, lambda: abs):
            pass

    assert "pickle" in _error(InvalidConfig, begin).message


def check_lost(make: MakePool, folder: Path) -> None:
    """A worker that dies is replaced; its payload is tried again, but not for ever."""
    with _standard(make) as pool:
        once, always, killed, *fine = _all(
            pool,
            ("exit_until", str(folder / "once")),
            ("exit", 3),
            ("kill_itself", signal.SIGKILL),
            *(("square", number) for number in range(10)),
        )
        assert once == "well"
        _require_failure(always, "lost", 2)
        _require_failure(killed, "lost", 2)
        assert fine == [number * number for number in range(10)]


def check_hung(make: MakePool, folder: Path) -> None:
    """A worker that does not end is ended; the others work on meanwhile."""
    with _standard(make) as pool:
        hung, *fine = _all(pool, ("sleep", 3600), *(("square", number) for number in range(10)))
        assert "2 seconds" in _require_failure(hung, "hung", 2).message
        assert fine == [number * number for number in range(10)]


def check_killed_from_outside(make: MakePool, folder: Path) -> None:
    """Whoever kills a worker, at work or idle, loses no payload."""
    with _standard(make) as pool:
        path = folder / "number"

        def kill() -> None:
            while not path.exists():
                time.sleep(0.02)
            os.kill(int(path.read_text()), signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        assert _all(pool, ("wait_for_end", str(path)), ("square", 3)) == ["well", 9]
        killer.join()
        for number in set(_all(pool, *[("number", None)] * 4)):
            os.kill(number, signal.SIGKILL)
        assert _all(pool, *(("square", number) for number in range(6))) == [0, 1, 4, 9, 16, 25]


def check_deadly_setup(make: MakePool, folder: Path) -> None:
    """A setup that ends its process again and again ends the pool."""
    _require_setup_failure(make, deadly_setup, "")


def check_hanging_setup(make: MakePool, folder: Path) -> None:
    """So does one that does not end."""
    _require_setup_failure(make, hanging_setup, "1 seconds", setup_seconds=1.0)


def check_workers_end(make: MakePool, folder: Path) -> None:
    """Closing a pool ends its workers, the busy one as well, and does not wait for it."""
    with _standard(make, hang_seconds=None) as pool:
        numbers = set(_all(pool, *[("number", None)] * 10))
        for _ in pool.run([("sleep", 3600), ("square", 3)]):
            break
    end = time.monotonic() + 60
    while any(is_alive(number) for number in numbers):
        assert time.monotonic() < end, "workers live on"
        time.sleep(0.05)


def _require_setup_failure(make: MakePool, setup: Setup, word: str, **settings: Any) -> WorkersFailed:
    with _standard(make, setup, **settings) as pool:
        error = _error(WorkersFailed, lambda: list(pool.run([1, 2, 3])))
    assert word in error.message
    return error


def _error(kind: type[E], action: Callable[[], object]) -> E:
    try:
        action()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def endure(make: MakePool, folder: Path, payloads: int, seconds: float) -> int:
    """The long check: all payloads end well while workers are killed every ``seconds`` or so; returns the kills.

    Each payload takes a tenth of that.
    """
    over = threading.Event()
    killed: list[int] = []

    def kill() -> None:
        while not over.wait(random.uniform(0.5, 1.5) * seconds):
            alive = [number for file in folder.iterdir() if is_alive(number := int(file.name.split("-")[0]))]
            if alive:
                killed.append(random.choice(alive))
                os.kill(killed[-1], signal.SIGKILL)

    with make(CountedSetup(str(folder), seconds / 10), attempts=20, hang_seconds=60.0) as pool:
        killer = threading.Thread(target=kill)
        killer.start()
        try:
            outcomes = _all(pool, *range(payloads))
        finally:
            over.set()
            killer.join()
    assert [outcome if isinstance(outcome, Failure) else outcome[0] for outcome in outcomes] == [*range(payloads)]
    return len(killed)


CHECKS: tuple[Check, ...] = (
    check_results,
    check_nothing_to_do,
    check_fewer_payloads_than_workers,
    check_size,
    check_no_number,
    check_none_is_a_result,
    check_raised,
    check_memory_error,
    check_retry_raised,
    check_setup_once,
    check_setup_raises,
    check_left_early,
)

SURVIVAL_CHECKS: tuple[Check, ...] = (
    check_unsendable,
    check_unsendable_setup,
    check_lost,
    check_hung,
    check_killed_from_outside,
    check_deadly_setup,
    check_hanging_setup,
    check_workers_end,
)
