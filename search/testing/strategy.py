"""What every strategy must do, as checks for our own and for anyone else's, on response surfaces made up for it.

check_strategy(lambda context, seed, budget: MyStrategy(context, seed, budget))
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from kinship.arrays import Float64
from kinship.measures.gram import GramTable
from merging.offspring.span import Genome, Span
from search.strategies.base import Answers, Context, Individual, Proposal, Strategy
from search.strategies.recipes import BASE

Make = Callable[[Context, int, int | None], Strategy]
"""A fresh strategy from context, seed and budget of evaluations."""

NAMES = (
    "model.embed_tokens.weight",
    "model.layers.0.mlp.up_proj.weight",
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.1.mlp.up_proj.weight",
    "model.layers.1.self_attn.q_proj.weight",
    "model.norm.weight",
)
LONGEST = 400  # evaluations after which a strategy without a budget should have ended
DOCUMENTS = 60


@dataclass
class Bowl:
    """A family whose scores are known in closed form.

    A model's score falls with the square of the distance of its coefficients from ``peak``, plus what its documents
    add: each is passed with a probability that its own preference of founders shifts a little, drawn once and for all.
    failing, partial: of every so many candidates one fails, or is stopped early, by their number; 0: none.
    """

    seed: int = 0
    founders: int = 5
    noise: float = 0.02
    failing: int = 0
    partial: int = 0
    genomes: dict[str, Genome] = field(default_factory=dict)
    evaluated: int = 0

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.seed)
        self.ids = tuple(f"founder-{number}" for number in range(self.founders))
        self.peak = random.dirichlet(np.ones(self.founders)) * 1.6
        self._shifts = random.normal(0.0, 1.0, (DOCUMENTS, self.founders))
        vectors = random.normal(0.0, 1.0, (len(NAMES), self.founders + 1, 30))
        vectors[:, 2:] += 0.5 * vectors[:, 1:2]  # the first founder is related to all others
        table = GramTable(
            (BASE, *self.ids),
            NAMES,
            np.full(len(NAMES), 30.0),
            vectors.sum(axis=2),
            vectors @ vectors.transpose(0, 2, 1),
        )
        self.span = Span.over(table)
        self.genomes = {id: self.span.founder(id) for id in self.span.ids}
        self._scores: dict[str, Float64] = {}
        self.individuals = {id: self.make_individual(id, 0, ()) for id in self.span.ids}

    def context(self) -> Context:
        """What a strategy is told of the family."""
        founders = tuple(self.individuals[id] for id in self.ids)
        table = self.span.table
        assert table is not None
        return Context(
            self.individuals[BASE],
            founders,
            NAMES,
            self._closeness,
            self._complementarity,
            lambda: np.asarray(table.grams.sum(axis=0)),
            self._cosine,
            self._answers,
        )

    def evaluate(self, proposals: Sequence[Proposal], generation: int) -> list[Individual]:
        """Make and score what is proposed."""
        children = []
        for number, proposal in enumerate(proposals, 1):
            id = f"{generation}-{number}"
            self.genomes[id] = self.span.merge(proposal.recipe, self.genomes)
            child = self.make_individual(id, generation, proposal.parents)
            self.evaluated += 1
            if self.failing and self.evaluated % self.failing == 0:
                child = replace(child, score=None, stderr=None, tasks={})
            elif self.partial and self.evaluated % self.partial == 0:
                # What few documents say of a poor candidate may be far too good.
                child = replace(child, score=(child.score or 0.0) + 0.5, stderr=0.3, complete=False)
            self.individuals[id] = child
            children.append(child)
        return children

    def value(self, genome: Genome) -> float:
        """The score without noise: 1 at the peak in every tensor."""
        offsets = genome.coefficients[:, 1:] - self.peak
        return float(1.0 - (offsets**2).sum(axis=1).mean())

    def make_individual(self, id: str, generation: int, parents: tuple[str, ...]) -> Individual:
        """Score one of `genomes`; families of other scores override this."""
        genome = self.genomes[id]
        documents = self.value(genome) + self.noise * math.sqrt(DOCUMENTS) * np.tanh(
            self._shifts @ genome.coefficients[:, 1:].mean(axis=0)
        )
        self._scores[id] = documents
        halves = {"first": float(documents[::2].mean()), "second": float(documents[1::2].mean())}
        return Individual(
            id,
            generation,
            float(documents.mean()),
            parents,
            "founder" if generation == 0 else "greedy",
            float(documents.std(ddof=1) / math.sqrt(DOCUMENTS)),
            True,
            halves,
        )

    def _closeness(self, one: str, other: str) -> float:
        kinship = self.span.kinship({one: self.genomes[one], other: self.genomes[other]})
        return kinship[one, other]

    def _cosine(self, one: str, other: str) -> float:
        return self.span.kinship({id: self.genomes[id] for id in (one, other)}, "cosine")[one, other]

    def _answers(self, id: str) -> Answers:
        return Answers(self._scores[id], np.full(DOCUMENTS, 1 / DOCUMENTS))

    def _complementarity(self, one: str, other: str) -> float:
        better, worse = sorted((one, other), key=lambda id: (-self._scores[id].mean(), id))
        return float((self._scores[worse] > self._scores[better]).mean())


@dataclass(frozen=True)
class Course:
    """What a strategy proposed, batch by batch, and what it was told."""

    proposals: list[list[Proposal]]
    results: list[list[Individual]]

    @property
    def evaluations(self) -> int:
        """How many candidates there were."""
        return sum(map(len, self.results))

    @property
    def best(self) -> float:
        """The best complete score."""
        scores = [
            child.score for batch in self.results for child in batch if child.complete and child.score is not None
        ]
        return max(scores, default=-math.inf)


def follow(strategy: Strategy, bowl: Bowl, budget: int | None = None, most: int = LONGEST) -> Course:
    """Ask and tell until nothing more is proposed or the budget is spent; the last batch may be cut short."""
    course = Course([], [])
    left = most if budget is None else budget
    while left > 0:
        proposals = strategy.ask()[:left]
        if not proposals:
            break
        results = bowl.evaluate(proposals, len(course.proposals) + 1)
        strategy.tell(results)
        course.proposals.append(proposals)
        course.results.append(results)
        left -= len(results)
    return course


def check_strategy(make: Make, bowl: Callable[[], Bowl] = Bowl, budget: int = 20) -> None:
    """Run every check; AssertionError says which promise is broken. ``bowl`` makes equal families at each call.

    Cost: about ten searches of ``budget`` evaluations, and one without a budget.
    """
    family = bowl()
    course = follow(make(family.context(), 3, budget), family, budget)
    check_replay(make, family, course, budget)
    check_proposals(family, course)
    check_end(make, bowl)
    check_failures(make, bowl, budget)


def check_replay(make: Make, family: Bowl, course: Course, budget: int) -> None:
    """A fresh strategy told the results of ``course`` proposes the same, wherever the run is resumed and however often
    it is asked.
    """
    resumed = make(family.context(), 3, budget)
    for proposals, results in zip(course.proposals, course.results, strict=True):
        for _ in range(3):
            assert resumed.ask()[: len(proposals)] == proposals, "a replay from the record, or asking again, differs"
        resumed.tell(results)


def check_proposals(family: Bowl, course: Course) -> None:
    """Recipes are valid, name only individuals there are, and come once."""
    assert course.proposals, "nothing is proposed"
    known, seen, pairs = set(family.span.ids), set(), set()
    for proposals, results in zip(course.proposals, course.results, strict=True):
        for proposal in proposals:
            proposal.recipe.check()
            unknown = set(proposal.recipe.references) - known
            assert not unknown, f"a recipe names {sorted(unknown)}, who do not exist yet"
            assert proposal.parents, "a proposal has no parents"
            text = str(proposal.recipe.to_dict())
            assert text not in seen, f"this was proposed before: {text}"
            seen.add(text)
            if len(proposal.parents) == 2 and proposal.recipe.merge_method != "task_arithmetic":
                pair = (frozenset(proposal.parents), str(proposal.recipe.parameters))
                assert pair not in pairs or proposal.role == "model", f"{sorted(pair[0])} met before"
                pairs.add(pair)
        known |= {child.id for child in results}


def check_end(make: Make, bowl: Callable[[], Bowl]) -> None:
    """Without a budget a strategy ends by itself; with one it does not mind that a batch is cut short."""
    family = bowl()
    course = follow(make(family.context(), 3, None), family)
    assert course.evaluations < LONGEST, f"no end after {LONGEST} evaluations without a budget"
    for budget in (1, 2, 7):
        family = bowl()
        course = follow(make(family.context(), 3, budget), family, budget)
        assert 0 < course.evaluations <= budget


def check_failures(make: Make, bowl: Callable[[], Bowl], budget: int) -> None:
    """Candidates that fail or are stopped early, some or all, end no search with an exception and are no parents of
    merges of the best.
    """
    for failing, partial in ((3, 2), (1, 0), (0, 1)):
        family = bowl()
        family.failing, family.partial = failing, partial
        course = follow(make(family.context(), 3, budget), family, budget)
        for proposals in course.proposals:
            for proposal in proposals:
                for parent in proposal.parents:
                    assert family.individuals[parent].scored, f"{parent} failed and is a parent"
        check_replay(make, family, course, budget)
