import os

import pytest

from kinship.errors import InvalidConfig
from kinship.threads import worker_count


@pytest.mark.parametrize(("given", "count"), [("3", 3), (" 2 ", 2), ("", None), ("  ", None)])
def test_the_environment_overrides_the_processors(
    monkeypatch: pytest.MonkeyPatch, given: str, count: int | None
) -> None:
    monkeypatch.setenv("KINSHIP_THREADS", given)
    assert worker_count() == (count or len(os.sched_getaffinity(0)))


@pytest.mark.parametrize("given", ["0", "-1", "abc", "1.5", "\u00b2", "\u0663", "9" * 30])
def test_what_is_no_number_of_threads_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("KINSHIP_THREADS", given)
    with pytest.raises(InvalidConfig, match="KINSHIP_THREADS"):
        worker_count()
