"""Is a ledger whole and at one with itself? Keys, genomes, identities, scores against documents, proposals."""

import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any
from zipfile import BadZipFile

import numpy as np

from evaluators.scores.aggregates import fitness
from evaluators.scores.score import Score
from evaluators.scores.splits import SPLITS, Split
from kinship.errors import KinshipError, LedgerError
from kinship.measures.gram import GramTable
from merging.offspring.span import Genome, Span, genome_identity
from merging.output.verify import Check
from search.history.comparisons import score_of
from search.ledger.database import damage
from search.ledger.individuals import Individuals
from search.ledger.ledger import Ledger, RunFacts
from search.ledger.records import Record
from search.strategies.recipes import BASE


def replayed(ledger: Ledger, facts: RunFacts) -> Iterator[tuple[int, bool]]:
    """Each recorded generation, and whether a fresh strategy, told of those before it, proposes it.

    Ends after the first that differs, and before one whose parents' generation has no scores yet. A generation that a
    budget cut short is compared as far as it goes. Cost: that of the strategy, and the kinship it asks for.
    """
    individuals = Individuals(ledger, facts)
    if not all(individuals.records[id].done for id in facts.table.rows):
        return
    strategy = individuals.strategy()
    offspring = sorted((record for record in individuals.records.values() if record.generation > 0), key=_generation)
    for generation, group in groupby(offspring, key=_generation):
        recorded = list(group)
        proposals = strategy.ask()[: len(recorded)]
        same = len(proposals) == len(recorded) and all(map(Record.is_of, recorded, proposals))
        yield generation, same
        if not (same and all(record.done for record in recorded)):
            return
        strategy.tell([record.individual() for record in recorded])


def _generation(record: Record) -> int:
    return record.generation


NAMED = 3  # of the individuals that something is wrong with
UNREADABLE = (
    KinshipError,
    ValueError,
    LookupError,
    TypeError,
    ArithmeticError,
    zlib.error,
    BadZipFile,
    EOFError,
)  # of what decodes columns


def verify_ledger(ledger: Ledger) -> list[Check]:
    """Every check of a run: ``database``, ``facts``, ``genomes``, ``descent``, ``scores``, ``replay``.

    Nothing is written. Weights are not read: what is in ``children/`` is not looked at. Raises `LedgerError` for a
    ledger without a run. Cost: everything is read once, and the strategy proposes everything anew.
    """
    checks = [_database(ledger)]
    try:
        facts = ledger.facts()
    except UNREADABLE as error:
        return [*checks, Check("facts", False, f"cannot be read: {error}")]
    if facts is None:
        raise LedgerError(f"{ledger.location} holds no run yet.", hint="Start it with `kinship evolve`.")
    try:
        audit = _Audit(ledger, facts, {record.id: record for record in ledger.records()}, ledger.table())
    except UNREADABLE as error:
        return [*checks, Check("facts", False, f"cannot be read: {error}")]
    return [*checks, audit.facts_hold(), audit.genomes(), audit.descent(), audit.scores(), audit.replay()]


def _database(ledger: Ledger) -> Check:
    found = damage(ledger.engine)
    if found is None:
        return Check("database", None, "the server keeps its own tables whole")
    return Check("database", not found, "; ".join(found[:NAMED]) or "pages and keys are whole")


@dataclass(frozen=True)
class _Audit:
    ledger: Ledger
    facts: RunFacts
    records: Mapping[str, Record]
    table: GramTable

    def facts_hold(self) -> Check:
        missing = [id for id in self.facts.table.rows if id not in self.facts.digests]
        people = [record.id for record in self.records.values() if record.generation == 0]
        if missing or (people and sorted(people) != sorted(self.facts.table.rows)):
            return Check("facts", False, "the Gram table, the digests and the founders are not of the same models")
        own = np.diagonal(self.table.grams, axis1=1, axis2=2)  # other products of children may be unknown
        if not all(np.isfinite(part).all() for part in (self.facts.table.grams, own, self.table.sums)):
            return Check("facts", False, "the Gram table has numbers that are not finite")
        return Check("facts", True, f"base, {len(self.facts.digests) - 1} founders, {len(self.table.names)} tensors")

    def genomes(self) -> Check:
        return self._check("genomes", self._bad_genomes(), f"{len(self._merged)} decode, each with its identity")

    def _bad_genomes(self) -> Iterator[str]:
        span = Span.over(self.table)
        digests = self.facts.digests | {child.id: child.digest for child in self.ledger.stored()}
        for record in self._merged:
            try:
                genome = self.ledger.genomes([record.id]).get(record.id)
            except UNREADABLE as error:
                yield f"{record.id} cannot be read: {error}"
                continue
            if genome is None:
                yield f"{record.id} has none"
            elif not (self._fits(genome) and digests.keys() >= set(span.ids)):
                yield f"{record.id} is not of this run's tensors and models"
            elif genome_identity(genome.padded(len(span.ids)), span, digests) != record.identity:
                yield f"{record.id} is not what its identity says"

    def _fits(self, genome: Genome) -> bool:
        rows, columns = genome.coefficients.shape
        fits = rows == len(self.table.names) and columns <= len(self.table.rows)
        return fits and bool(np.isfinite(genome.coefficients).all())

    def descent(self) -> Check:
        return self._check("descent", self._bad_descent(), f"{len(self.records)} individuals, parents before children")

    def _bad_descent(self) -> Iterator[str]:
        seen: set[str] = set()
        for record in self.records.values():
            for parent in record.parents:
                if parent not in seen or self.records[parent].generation >= max(record.generation, 1):
                    yield f"{record.id} has the parent {parent}, which is not from before"
            if record.twin is not None and (
                record.twin not in seen or self.records[record.twin].identity != record.identity
            ):
                yield f"{record.id} is not the double of {record.twin}"
            seen.add(record.id)

    def scores(self) -> Check:
        count = sum(len(record.scores) for record in self.records.values())
        return self._check("scores", self._bad_scores(), f"{count} follow from their documents")

    def _bad_scores(self) -> Iterator[str]:
        aggregate = self.facts.config.aggregate
        for split in SPLITS:
            founders = self._founders(split) if aggregate.kind == "normalised" else []
            for record in [*self.records.values(), *self.ledger.controls()]:
                summary = record.scores.get(split)
                if summary is None:
                    continue
                try:
                    score = score_of(self.ledger, self.facts, record, split)
                    if summary.complete:  # an estimate is the race's, which also knew the others
                        estimate = fitness(score, aggregate, founders)
                        same = _near(estimate.value, summary.value) and _near(estimate.stderr, summary.stderr)
                    else:
                        same = score.count == summary.facts["documents"]
                except UNREADABLE as error:
                    yield f"{record.id} ({split}): {error}"
                    continue
                if not same:
                    yield f"{record.id} ({split}) does not follow from its documents"

    def _founders(self, split: Split) -> list[Score]:
        ids = [id for id in self.facts.digests if id != BASE and split in self.records[id].scores]
        return [score_of(self.ledger, self.facts, self.records[id], split) for id in ids]

    def replay(self) -> Check:
        """Whether the strategy proposes what is recorded: needed to go on with the run, not to believe its scores."""
        try:
            steps = list(replayed(self.ledger, self.facts))
        except UNREADABLE as error:
            return Check("replay", False, f"the strategy cannot be asked again: {error}")
        wrong = [generation for generation, same in steps if not same]
        if wrong:
            return Check("replay", False, f"generation {wrong[0]} is not what this program would propose")
        return Check("replay", True if steps else None, f"{len(steps)} generations are proposed again as recorded")

    @cached_property
    def _merged(self) -> list[Record]:
        return [record for record in self.records.values() if record.identity is not None]

    @staticmethod
    def _check(name: str, wrong: Iterator[str], right: str) -> Check:
        found = list(wrong)
        more = f"; {len(found) - NAMED} more" if len(found) > NAMED else ""
        return Check(name, not found, "; ".join(found[:NAMED]) + more if found else right)


def _near(one: float, other: Any) -> bool:
    """Equal but for rounding; null stands for NaN."""
    return math.isnan(one) if other is None else math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
