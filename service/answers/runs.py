"""Runs: which there are, what failed in one, and one rebuilt from its archive."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kinship.errors import LedgerError, OutputExists, ReferenceNotFound
from service.answers.base import Answer, Part, named

if TYPE_CHECKING:
    from search.ledger.ledger import Ledger, RunFacts
    from search.ledger.location import LedgerLocation
    from search.ledger.records import Record


class RunSummary(Part):
    """A run at a glance."""

    folder: str
    """Or URL and name."""
    strategy: str
    """Its name, as in the run file."""
    founders: int
    """How many."""
    offspring: int
    """How many, failed ones included."""
    failed: int
    """Of the offspring."""
    best: str | None
    """Best individual on the search split."""
    best_offspring: str | None
    """Best offspring there."""
    score: float | None
    """Of the best."""
    hours: float
    """Of work."""
    stopped: str | None
    """Why; null: it is not finished."""


class Runs(Answer):
    """The runs in and below a folder, or in a database."""

    schema_: Literal["kinship.runs/1"] = named("kinship.runs/1")
    runs: list[RunSummary]
    """By folder, or name."""


class Failure(Part):
    """A failed attempt to merge or score an individual."""

    stage: str
    """``merging``, ``search`` or ``held_out``."""
    kind: str
    """``raised``, ``hung`` or ``lost``."""
    message: str
    """Why."""
    traceback: str
    """Where it was raised; may be empty."""
    attempts: int
    """How many were made."""


class _OfIndividual(Part):
    id: str
    """The individual."""


class RunFailure(Failure, _OfIndividual):
    """A failed attempt, and whose it was."""


class Failures(Answer):
    """What failed in a run."""

    schema_: Literal["kinship.failures/1"] = named("kinship.failures/1")
    failures: list[RunFailure]
    """By individual."""


class ImportedRun(Answer):
    """A run rebuilt from its archive."""

    schema_: Literal["kinship.runs-import/1"] = named("kinship.runs-import/1")
    folder: str
    """Of the run."""
    ledger: str
    """The file, or URL and name."""
    individuals: int
    """How many."""


def open_run(name: str, *, damaged: bool = False) -> "Ledger":
    """The ledger of a run that is there: by its folder, or as URL#NAME. Raises `LedgerError` where there is none.

    damaged: open one that is damaged, too, to be looked into.
    """
    from search.ledger.database import runs_in
    from search.ledger.ledger import Ledger
    from search.ledger.location import LedgerLocation

    if "://" not in name:
        return Ledger.of_run(Path(name), damaged=damaged)
    place = LedgerLocation.parse(name)
    if place.run not in runs_in(place):
        raise LedgerError(f"There is no run {place}.", hint="`kinship runs list URL` tells which there are.")
    return Ledger(place)


def list_runs(where: str, unreadable: Callable[[Path, LedgerError], None] = lambda folder, error: None) -> Runs:
    """The runs in and below a folder, or in the database of a URL; ``unreadable`` is told of ledgers that cannot be.

    Raises `ReferenceNotFound` where there is no such folder.
    """
    if "://" not in where and not Path(where).is_dir():
        raise ReferenceNotFound(f"There is no folder {where}.", hint="Give one that runs are in, or a run's own.")
    return Runs(runs=list(_runs(where, unreadable)))


def failures_of(run: str) -> Failures:
    """What failed in a run: its folder, or URL#NAME. Raises `LedgerError` where there is none."""
    with open_run(run) as ledger:
        found = ledger.failures()
    return Failures(failures=[RunFailure(id=id, **vars(failed)) for id, all in found.items() for failed in all])


def import_run(
    file: Path,
    out: Path,
    ledger: str | None = None,
    *,
    force: bool = False,
    without_weights: Callable[[], None] = lambda: None,
) -> ImportedRun:
    """Rebuild a run from its full export, in ``out`` or in a database; nothing remains where that fails.

    ``without_weights`` is called where the run has children whose weights are not in the file. Raises `LedgerError` for
    what is no full export, and `OutputExists` for what is there already and not replaced by ``force``.
    """
    from kinship.output import output_folder, require_writable
    from search.history.archive import restore
    from search.ledger.ledger import Ledger
    from search.ledger.location import LEDGER_NAME, LedgerLocation, write_pointer
    from service.answers.replaced import foreign_in_run

    require_writable(out, force=force, folder=foreign_in_run, inputs=[file])
    content = _read_archive(file)
    place = (
        LedgerLocation.of_file(out / LEDGER_NAME)
        if ledger is None
        else LedgerLocation.parse(ledger, out.absolute().name)
    )
    with output_folder(out, force=force, foreign=foreign_in_run) as partial:
        with Ledger(partial / LEDGER_NAME) as run:
            restore(content, run)
        if ledger is not None:
            # It can be restored: what is in the database may go.
            for file in partial.iterdir():
                file.unlink()
            _restore_in_database(content, place, force=force)
            write_pointer(partial, place)
    if content["stored"]:
        without_weights()
    return ImportedRun(folder=str(out), ledger=str(place), individuals=len(content["individuals"]))


def _restore_in_database(content: dict[str, Any], place: "LedgerLocation", *, force: bool) -> None:
    from search.history.archive import restore
    from search.ledger.ledger import Ledger

    with Ledger(place, exclusive=True) as run:
        if run.facts() is not None and not force:
            raise OutputExists(f"{place} exists already.", hint="Choose another name, or replace it with --force.")
        run.delete()
        try:
            restore(content, run)
        except BaseException:
            run.delete()
            raise


def _runs(where: str, unreadable: Callable[[Path, LedgerError], None]) -> Iterator[RunSummary]:
    from search.ledger.database import runs_in
    from search.ledger.ledger import Ledger
    from search.ledger.location import LEDGER_NAME, POINTER_NAME, LedgerLocation

    if "://" in where:
        place = LedgerLocation.parse(where, "any")
        for run in runs_in(place):
            found = replace(place, run=run)
            with Ledger(found) as ledger:
                yield from _summary(ledger, str(found))
        return
    files = [*Path(where).rglob(LEDGER_NAME), *Path(where).rglob(POINTER_NAME)]
    for folder in sorted({file.parent for file in files}):
        try:
            with Ledger.of_run(folder) as ledger:
                yield from _summary(ledger, str(folder))
        except LedgerError as error:
            unreadable(folder, error)


def _summary(ledger: "Ledger", name: str) -> Iterator[RunSummary]:
    """What is listed of a run; nothing where none has begun."""
    facts = ledger.facts()
    if facts is not None:
        yield summary_of(ledger, name, facts, ledger.records())


def summary_of(ledger: "Ledger", name: str, facts: "RunFacts", records: "Sequence[Record]") -> RunSummary:
    """What is listed of the run in ``ledger``, of these ``facts`` and ``records``."""
    from search.ledger.records import best_of, best_offspring

    best, winner = best_of(records), best_offspring(records)
    offspring = [record for record in records if record.generation > 0]
    return RunSummary(
        folder=name,
        strategy=facts.config.strategy.name,
        founders=sum(record.role == "founder" for record in records),
        offspring=len(offspring),
        failed=sum(record.error is not None for record in offspring),
        best=best.id if best else None,
        best_offspring=winner.id if winner else None,
        score=best.fitness if best else None,
        hours=ledger.seconds() / 3600,
        stopped=ledger.stopped(),
    )


def _read_archive(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise LedgerError(f"{file} cannot be read: {error.strerror}.", hint="Give a full export.") from None
    except ValueError as error:
        raise LedgerError(f"{file} is no JSON: {error}.", hint="Make it with `kinship runs export --full`.") from None
    return content
