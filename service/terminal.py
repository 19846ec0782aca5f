"""A console to which every string is text from outside, and the few ways to give it more than that."""

import os
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import Progress, Task, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from kinship.outside import on_terminal

UNCUT = 10_000
LINE_EVERY = 30.0  # seconds
NARROWEST = 40  # letters; in less, such as the 1 of a terminal without a size, a table shows nothing


class Terminal(Console):
    """Prints strings `on_terminal`, without markup: also those in tables, titles and headers.

    What is to have a style is made by `styled`, what is to have several lines by `lines`.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)
        if not self.is_terminal and "COLUMNS" not in os.environ:
            self.width = UNCUT  # of a file or a pipe, nobody wants lines wrapped or cells cut
        if self.width < NARROWEST:
            self.width = NARROWEST

    def print(self, *objects: Any, **options: Any) -> None:
        """See `rich.console.Console.print`; a table's title is a line above it, however narrow the table is."""
        for each in objects:
            if isinstance(each, Table) and isinstance(each.title, str):
                title, each.title = Text(on_terminal(each.title), style="table.title"), None
                super().print(title, soft_wrap=True)
        super().print(*objects, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """See `rich.console.Console.render_str`."""
        return super().render_str(on_terminal(text), **options | {"markup": False, "emoji": False})


class PlainColumn(TextColumn):
    """A column of a progress bar; what it says is text from outside, too."""

    def render(self, task: Task) -> Text:
        """See `rich.progress.TextColumn.render`."""
        return Text(on_terminal(self.text_format.format(task=task)))


class LoggedProgress(Progress):
    """Of a file or a pipe, where no bar can be drawn: now and then a line of what is at hand."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, disable=True)
        self._last = self.get_time()

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """See `rich.progress.Progress.update`."""
        super().update(task_id, **changes)
        if self.get_time() - self._last < LINE_EVERY:
            return
        self._last = self.get_time()
        self.console.print("; ".join(_told(task) for task in self.tasks if task.visible), soft_wrap=True)


def _told(task: Task) -> str:
    amount = task.fields["amount"] or ("" if task.total is None else f"{task.completed:.0f} of {task.total:.0f}")
    times = (
        f"{timedelta(seconds=round(seconds))} {word}"
        for seconds, word in ((task.elapsed, "so far"), (task.time_remaining, "left"))
        if seconds is not None
    )
    return f"{task.description}: {', '.join([*filter(None, [amount]), *times])}"


def styled(*parts: str | tuple[str, str]) -> Text:
    """One line of ``parts``, each from outside, those with a style as (text, style)."""
    texts = ((part, "") if isinstance(part, str) else part for part in parts)
    return Text.assemble(*((on_terminal(text), style) for text, style in texts))


def lines(*texts: str) -> Text:
    """``texts``, each from outside, below each other."""
    return Text("\n".join(map(on_terminal, texts)))
