"""How the commands speak: tables and bars for people, one JSON object for machines, errors for both.

A string that is printed is text from outside: see `service.terminal`.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kinship.errors import KinshipError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from service.answers.base import Answer


REMEMBERED = 86_400.0  # seconds over which a rate is averaged: of a step slower than this no bar knows the time left
listeners: list[Callable[[str, int, int, str], None]] = []
"""Told of every step of a command's progress as (stage, done, in all, unit), whether a bar is shown or not."""


def console() -> "Console":
    """For results."""
    from service.terminal import Terminal

    return Terminal()


def notes() -> "Console":
    """For everything that is not the result: progress, notes, errors."""
    from service.terminal import Terminal

    return Terminal(stderr=True)


def note(text: str) -> None:
    """One note on standard error, marked as such."""
    from service.terminal import styled

    notes().print(styled(("Note:", "yellow"), f" {text}"), soft_wrap=True)


def print_json(answer: "Answer", *, indent: int | None = 2) -> None:
    """One JSON object on standard output."""
    write_json(answer.to_json(indent=indent) + "\n")


def write_json(text: str) -> None:
    """JSON on standard output, whatever letters that can hold."""
    from kinship.outside import json_in

    sys.stdout.write(json_in(sys.stdout.encoding or "utf-8", text))
    sys.stdout.flush()


def print_error(error: KinshipError, *, as_json: bool) -> None:
    """The error in the form asked for."""
    from service.answers.error import Error

    if as_json:
        print_json(Error.of(error), indent=None)
        return
    from service.terminal import styled

    notes().print(styled(("Error:", "bold red"), f" {error.message}"), soft_wrap=True)
    if error.hint:
        notes().print(styled(("Next:", "bold"), f"  {error.hint}"), soft_wrap=True)


def tell(stage: str, done: int, total: int, unit: str) -> None:
    """Tell all `listeners`."""
    for listener in listeners:
        listener(stage, done, total, unit)


def progress_bar(*, quiet: bool = False) -> "Progress":
    """A bar with count, rate and time left, on standard error; where that is no terminal, a line now and then."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from service.terminal import LoggedProgress, PlainColumn

    if not quiet and not notes().is_terminal:
        return LoggedProgress(console=notes(), speed_estimate_period=REMEMBERED)
    return Progress(
        PlainColumn("{task.description}"),
        BarColumn(),
        PlainColumn("{task.fields[amount]}"),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        console=notes(),
        transient=True,
        speed_estimate_period=REMEMBERED,
        disable=quiet,
    )


@contextmanager
def byte_progress(label: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Yield a callable that is told (bytes done, bytes in all)."""
    from rich.filesize import decimal

    with progress_bar(quiet=quiet) as bar:
        task = bar.add_task(label, amount="")

        def update(done: int, total: int) -> None:
            tell(label, done, total, "B")
            speed = bar.tasks[task].speed
            rate = f" {decimal(int(speed))}/s" if speed else ""
            bar.update(task, completed=done, total=total, amount=f"{decimal(done)} of {decimal(total)}{rate}")

        yield update


@contextmanager
def stage_progress(*, quiet: bool = False) -> Iterator[Callable[[str, int, int, str], None]]:
    """Yield a callable that is told (stage, done, in all, unit; ``B`` for bytes): one bar, of the stage at hand."""
    from rich.filesize import decimal

    with progress_bar(quiet=quiet) as bar:
        tasks: dict[str, TaskID] = {}

        def update(stage: str, done: int, total: int, unit: str) -> None:
            tell(stage, done, total, unit)
            if done == 0 or stage not in tasks:
                for task in tasks.values():
                    bar.remove_task(task)
                tasks.clear()
                tasks[stage] = bar.add_task(stage, amount="")
            speed = bar.tasks[-1].speed
            show = decimal if unit == "B" else str
            rate = f" {decimal(int(speed))}/s" if speed and unit == "B" else ""
            bar.update(tasks[stage], completed=done, total=total, amount=f"{show(done)} of {show(total)}{rate}")

        yield update
