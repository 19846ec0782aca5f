"""The comparisons of merge methods that lie in the workspace."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kinship.errors import CacheError, LedgerError
from search.comparison.store import NAME, Store
from search.ledger.location import LOCK_NAME, is_held
from service.answers.method_comparison import FILE, MethodComparison, read_comparison
from service.http.workspace import Workspace
from service.jobs.errors import NotFound


@dataclass(frozen=True)
class ComparisonPlace:
    """A comparison: its folder, and the id that addresses name it by, as those of runs are."""

    id: str
    name: str
    folder: Path

    @property
    def running(self) -> bool:
        """Whether a process works on it, as far as can be known."""
        try:
            return is_held(self.folder / LOCK_NAME)
        except LedgerError:
            return False

    @property
    def arms(self) -> int | None:
        """How many are done; None where the file is damaged or cannot be read."""
        try:
            return len(Store(self.folder / NAME).all())
        except CacheError:
            return None

    @property
    def done(self) -> bool:
        """Whether it came to its end once."""
        return (self.folder / FILE).is_file()

    @property
    def answer(self) -> MethodComparison | None:
        """What it found; None before its end. Raises `InvalidConfig`."""
        return read_comparison(self.folder / FILE) if self.done else None


def comparisons(workspace: Workspace) -> Sequence[ComparisonPlace]:
    """All of them, by name."""
    return [
        ComparisonPlace(workspace.id_of(folder), workspace.relative(folder), folder)
        for folder in workspace.comparisons()
    ]


def comparison(workspace: Workspace, id: str) -> ComparisonPlace:
    """The one of that id. Raises `NotFound`."""
    for place in comparisons(workspace):
        if place.id == id:
            return place
    workspace.forget()  # it may be new
    for place in comparisons(workspace):
        if place.id == id:
            return place
    raise NotFound(f"There is no comparison {id!r} here.", hint="The page Methods lists them.")
