"""The inline pool."""

from pathlib import Path
from typing import Any

import pytest

from evaluators.testing.pool import CHECKS, Check
from evaluators.testing.scripted import Scripted
from evaluators.workers import Setup, WorkerPool, WorkerSettings, make_pool


def make_inline(setup: Setup, **settings: Any) -> WorkerPool:
    return make_pool(WorkerSettings(kind="inline", **settings), setup)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(check: Check, tmp_path: Path) -> None:
    check(make_inline, tmp_path)


def test_ctrl_c_is_no_failure_of_the_payload() -> None:
    def interrupted() -> Any:
        def handle(payload: object) -> None:
            raise KeyboardInterrupt

        return handle

    with make_inline(interrupted) as pool, pytest.raises(KeyboardInterrupt):
        list(pool.run([1, 2]))


def test_nothing_travels() -> None:
    payload = ("nothing", lambda: None)
    with make_inline(Scripted()) as pool:
        assert list(pool.run([payload])) == [(0, None)]
