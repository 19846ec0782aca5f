"""What was found wrong: of a model's folder, of a run's ledger."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from service.answers.base import Answer, Part, named

if TYPE_CHECKING:
    from merging.output.verify import Check as Found


class Check(Part):
    """One thing that was looked at."""

    name: str
    """What it is called; stable."""
    ok: bool | None
    """Null where it could not be looked at, or there was nothing to compare with."""
    detail: str
    """What was found, in words."""


class FolderChecks(Answer):
    """Whether a model's folder is whole."""

    schema_: Literal["kinship.verify/1"] = named("kinship.verify/1")
    folder: str
    """As given."""
    ok: bool
    """False where something is wrong; the command then ends with exit code 1."""
    checks: list[Check]
    """In the order made."""


class RunChecks(Answer):
    """Whether a run's ledger is whole and at one with itself."""

    schema_: Literal["kinship.runs-verify/1"] = named("kinship.runs-verify/1")
    run: str
    """Folder, or URL and name, as given."""
    ok: bool
    """False where something is wrong; the command then ends with exit code 1."""
    checks: list[Check]
    """In the order made."""


def check_folder(folder: Path, progress: Callable[[int, int], None] | None = None) -> FolderChecks:
    """Check the model in ``folder``: see `merging.output.verify.verify_folder`, also for what it raises."""
    from merging.output.verify import verify_folder

    found = verify_folder(folder, progress)
    return FolderChecks(folder=str(folder), ok=_sound(found), checks=_checks(found))


def check_run(run: str) -> RunChecks:
    """Check a run's ledger: see `search.history.audit.verify_ledger`. Raises `LedgerError` where there is no run."""
    from search.history.audit import verify_ledger
    from service.answers.runs import open_run

    with open_run(run, damaged=True) as ledger:
        found = verify_ledger(ledger)
    return RunChecks(run=run, ok=_sound(found), checks=_checks(found))


def _sound(found: "Sequence[Found]") -> bool:
    return all(check.ok is not False for check in found)


def _checks(found: "Sequence[Found]") -> list[Check]:
    return [Check.model_validate(check.to_dict()) for check in found]
