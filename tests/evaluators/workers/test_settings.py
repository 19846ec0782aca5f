"""Worker settings: what is refused, and what follows from what is given."""

import pytest
from pydantic import ValidationError

from evaluators.workers import WorkerSettings
from evaluators.workers.settings import thread_environment


@pytest.mark.parametrize(
    ("kind", "foreign"),
    [
        ("inline", {"count": 2}),
        ("inline", {"devices": [0]}),
        ("inline", {"threads": 1}),
        ("inline", {"address": "auto"}),
        ("local", {"address": "auto"}),
        ("local", {"gpus": 1}),
        ("ray", {"devices": [0, 1]}),
    ],
)
def test_settings_of_another_kind_are_refused(kind: str, foreign: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=f"{next(iter(foreign))} means nothing to workers of the kind {kind}"):
        WorkerSettings.model_validate({"kind": kind} | foreign)


def test_one_inline_worker_may_be_counted() -> None:
    assert WorkerSettings(kind="inline", count=1).count == 1


@pytest.mark.parametrize(
    ("given", "count", "threads"),
    [
        ({}, 1, 8),
        ({"count": 3}, 3, 2),
        ({"count": 8}, 8, 1),
        ({"count": 20}, 20, 1),
        ({"devices": [0, "GPU-1"]}, 2, 4),
        ({"devices": [0, 1], "count": 4}, 4, 2),
        ({"count": 4, "threads": 5}, 4, 5),
    ],
)
def test_cores_are_shared_out(
    given: dict[str, object], count: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KINSHIP_THREADS", "8")
    settings = WorkerSettings.model_validate({"kind": "local"} | given)
    assert (settings.local_count(), settings.local_threads()) == (count, threads)


def test_threads_are_set_for_all_that_compute() -> None:
    assert thread_environment(3)["OMP_NUM_THREADS"] == "3" == thread_environment(3)["KINSHIP_THREADS"]


def test_settings_without_limits() -> None:
    settings = WorkerSettings.model_validate({"kind": "local", "hang_seconds": None, "setup_seconds": None})
    assert settings.hang_seconds is None
