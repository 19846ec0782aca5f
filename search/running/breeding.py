"""From proposals to individuals: genomes, identities, doubles; what cannot be merged is a failure of its own."""

import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from evaluators.workers.base import words
from kinship.errors import OutputNotWritable
from merging.offspring.basis import Absent, Basis
from merging.offspring.span import Genome, child_seed, genome_identity
from merging.recipe.schema import Recipe
from search.ledger.individuals import Individuals
from search.ledger.records import Failed, Record, StoredChild
from search.running.events import Observer
from search.strategies.base import Proposal


@dataclass
class Brood:
    """Individuals proposed together, and what the ledger has to keep of them."""

    records: list[Record] = field(default_factory=list)
    genomes: dict[str, Genome] = field(default_factory=dict)
    failures: dict[str, Failed] = field(default_factory=dict)
    stored: list[StoredChild] = field(default_factory=list)


class Breeder:
    """Makes individuals of ``basis``, which grows by the children that lie outside its span.

    digests: of its members' weights by id. individuals: all so far.
    """

    def __init__(
        self, basis: Basis, digests: Mapping[str, str], individuals: Individuals, seed: int, observer: Observer
    ) -> None:
        self.basis = basis
        self._digests = dict(digests)
        self._individuals = individuals
        self._first: dict[str | None, str] = {}
        for record in individuals.records.values():
            self._first.setdefault(record.identity, record.id)
        self._seed = seed
        self._observer = observer

    def founders(self, base: str) -> Brood:
        """The base and the founders, generation 0."""
        brood = Brood()
        for id in self.basis.span.ids:
            genome = self.basis.span.founder(id)
            role, identity = ("base" if id == base else "founder"), self.identity(genome)
            brood.genomes[id] = genome
            brood.records.append(Record(id, 0, role, (), {}, identity, twin=self._twin(id, identity)))  # type: ignore[arg-type]
        return brood

    def offspring(self, proposals: Sequence[Proposal], generation: int, first: int, batch: int) -> Brood:
        """The children of ``proposals``, numbered from ``first``.

        Raises what the disk raises: a full one is no child's fault.
        """
        brood = Brood()
        for number, proposal in enumerate(proposals, first):
            id, identity = f"{generation}-{number}", None
            self._observer("phase", {"phase": "merging", "individual": id})
            try:
                genome = self._merge(id, proposal.recipe, brood)
                identity = self.identity(genome)
                brood.genomes[id] = genome
            except (OSError, OutputNotWritable):
                raise
            except Exception as error:
                brood.failures[id] = Failed("merging", "raised", words(error), traceback.format_exc())
            brood.records.append(
                Record(
                    id,
                    generation,
                    proposal.role,
                    proposal.parents,
                    proposal.recipe.to_dict(),
                    identity,
                    batch,
                    self._individuals.mean_kinship(proposal.parents),
                    self._twin(id, identity),
                    brood.failures[id].message if id in brood.failures else None,
                )
            )
        return brood

    def prune(self, keep: Iterable[str]) -> list[str]:
        """Remove the weights of those that none of ``keep`` is made of; ids of those that were there."""
        needed = {column for id in keep for column in self._columns(id)}
        members = enumerate(self.basis.models)
        gone = [each.id for column, each in members if column not in needed and not isinstance(each, Absent)]
        if gone:
            self.basis = self.basis.without(gone)
        return gone

    def require_weights(self, id: str) -> None:
        """Make again what an individual is made of, where that was removed.

        Raises `MalformedCheckpoint` where this program would make something else.
        """
        for column in self._columns(id):
            child = self.basis.models[column]
            if isinstance(child, Absent):
                self._observer("phase", {"phase": "merging", "individual": child.id})
                recipe = self._individuals.recipe(child.id)
                for parent in recipe.references:
                    self.require_weights(parent)
                genomes = {parent: self._individuals.genome(parent) for parent in recipe.references}
                seed, digest = child_seed(self._seed, child.id), self._digests[child.id]
                self.basis = self.basis.restored(child.id, recipe, genomes, seed=seed, digest=digest)

    def _columns(self, id: str) -> list[int]:
        """The members of the basis that an individual is made of."""
        return [int(column) for column in np.flatnonzero(self._individuals.genome(id).coefficients.any(axis=0))]

    def identity(self, genome: Genome) -> str:
        """Equal for genomes of the same weights."""
        return genome_identity(genome, self.basis.span, self._digests)

    def _merge(self, id: str, recipe: Recipe, brood: Brood) -> Genome:
        if not self.basis.span.holds(recipe):
            for parent in recipe.references:
                self.require_weights(parent)
        genomes = {parent: self._individuals.genome(parent) for parent in recipe.references}
        child = self.basis.merge_or_add(id, recipe, genomes, seed=child_seed(self._seed, id), force=True)
        if child.digest is not None:
            table = child.basis.table
            row = {"sums": table.sums[:, -1], "products": table.grams[:, -1, :]}
            brood.stored.append(StoredChild(id, child.digest, row))
            self._digests[id] = child.digest
            self.basis = child.basis
        return child.genome

    def _twin(self, id: str, identity: str | None) -> str | None:
        first = id if identity is None else self._first.setdefault(identity, id)
        return None if first == id else first
