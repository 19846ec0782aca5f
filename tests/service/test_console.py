"""Progress as people see it: on a terminal, and in the log of what runs without one."""

from collections.abc import Callable

import pytest
from rich.progress import Progress

from service import console, terminal
from service.commands.search_progress import SearchProgress


def paced(bar: Progress, seconds: float) -> Callable[[], None]:
    """Give the bar a clock that is so many ``seconds`` later with every call of what is returned."""
    now = bar.get_time()
    bar.get_time = lambda: now

    def tick() -> None:
        nonlocal now
        now += seconds

    return tick


def test_a_log_has_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress_bar() as bar:
        tick = paced(bar, 10)
        task = bar.add_task("Arms", amount="", total=12)
        for done in range(1, 13):
            tick()
            bar.update(task, completed=done, amount=f"{done} of 12 [bold]")
    assert capsys.readouterr().err.splitlines() == [
        f"Arms: {done} of 12 [bold], {spent} so far, {left} left"
        for done, spent, left in ((3, "0:00:30", "0:01:30"), (6, "0:01:00", "0:01:00"), (9, "0:01:30", "0:00:30"))
    ] + ["Arms: 12 of 12 [bold], 0:02:00 so far, 0:00:00 left"]


def test_short_work_and_quiet_work_leave_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    for bar, seconds in ((console.progress_bar(), terminal.LINE_EVERY / 20), (console.progress_bar(quiet=True), 100)):
        with bar:
            tick = paced(bar, seconds)
            task = bar.add_task("Arms", amount="", total=12)
            for done in range(1, 13):
                tick()
                bar.update(task, completed=done)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("seconds", [0.1, 40, 4_000])
def test_time_left_is_known_however_slow_a_step_is(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    bar = console.progress_bar()
    assert not bar.disable
    tick = paced(bar, seconds)
    task = bar.add_task("Arms", amount="", total=10)
    for done in range(1, 5):
        tick()
        bar.update(task, completed=done)
    assert bar.tasks[0].time_remaining == pytest.approx(6 * seconds, abs=1)


def test_a_search_says_in_a_log_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress_bar() as bar:
        tick = paced(bar, 100)
        shown = SearchProgress(bar)
        started = {"count": 1, "workers": "inline", "device": "cpu", "best": None, "evaluations": 8, "baselines": 4}
        shown("started", started | {"scored": 0})
        for number in range(3):
            tick()
            fact = {"individual": f"founder-{number}", "value": 0.5 + number / 10, "stderr": 0.01, "complete": True}
            shown("scored", fact | {"split": "search"})
    lines = capsys.readouterr().err.splitlines()
    assert (
        "Base and founders: 4 of 4, best founder-2 0.7000 ± 0.0100, cpu, 0:05:00 so far, 0:01:40 left; "
        "Whole search: 3 of 12, 0:05:00 so far, 0:15:00 left"
    ) in lines
