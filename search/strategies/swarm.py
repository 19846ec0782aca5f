"""Model Swarms: particle swarm optimisation over merges (Feng et al., arXiv 2410.11163, algorithm 1)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kinship.arrays import Float64
from search.strategies.base import Context, Individual, Proposal
from search.strategies.random_search import UNLIMITED
from search.strategies.settings import MergeSettings, StrategySettings
from search.strategies.span_points import DECIMALS, near, point_recipe, require_weights

STEP, SHORTEN, SHORTEST = 0.5, 0.95, 0.1  # how far a particle goes along its velocity, ever less: the authors' defaults
RESTART = 3  # steps without a better place of its own, after which a particle returns to that and forgets its velocity


class Best(NamedTuple):
    """A place (founders,), and the score there."""

    place: Float64
    score: float


class Swarm:
    """Particles that move through the founders' span, drawn by the best places and driven from the worst.

    A particle is a row of coefficients over the founders' task vectors. They begin as the founders, and where there are
    fewer than ``particles``, as points between two of these; each velocity points to another particle. At each step
    `velocities` says where they go; a particle that comes where somebody was is not scored again. The search is over
    when the best place was not improved for ``patience`` steps. Who failed or was stopped early is nobody's best.
    Raises `InvalidConfig` for merges that are no points of the span.
    """

    def __init__(
        self, settings: StrategySettings, merge: MergeSettings, context: Context, seed: int, budget: int | None
    ) -> None:
        require_weights(merge, settings.name)
        self._settings = settings
        self._seed = seed
        self._founders = [founder.id for founder in context.founders]
        self._left = UNLIMITED if budget is None else None
        count = len(self._founders)
        self.places = begin(count, max(settings.particles, count), np.random.default_rng([seed, 0]))
        self.velocities = toward_others(self.places, np.random.default_rng([seed, 1]))
        self.own = [Best(place, -np.inf) for place in self.places]
        self.best = self.worst = Best(self.places[0], -np.inf)
        self._known: list[Float64] = []
        self._still = 0
        self._since = np.zeros(len(self.places), dtype=int)
        self._step = 0
        for number, founder in enumerate(context.founders):
            self._learn(number, founder)
        self._moving = list(range(count, len(self.places)))
        if not self._moving:
            self._move()

    def ask(self) -> list[Proposal]:
        """See `Strategy.ask`."""
        if self._still >= self._settings.patience:
            return []
        places = [self.places[number] for number in self._moving[: self._left]]
        return [Proposal(point_recipe(place, self._founders), "model") for place in places]

    def tell(self, results: Sequence[Individual]) -> None:
        """See `Strategy.tell`."""
        before = self.best.score
        self._since += self._step > 0
        for number, child in zip(self._moving, results, strict=False):
            self._learn(number, child)
        if self._left is not None:
            self._left = self._left - len(results) if results else 0
        if self._step:
            self._still = 0 if self.best.score > before else self._still + 1
        self._move()

    def _learn(self, number: int, individual: Individual) -> None:
        place, score = self.places[number], individual.score
        self._known.append(place)
        if score is None or not individual.complete:
            return
        if score > self.own[number].score:
            self.own[number] = Best(place, score)
            self._since[number] = 0
        self.best = max(self.best, Best(place, score), key=lambda one: one.score)
        if score < self.worst.score or np.isneginf(self.worst.score):
            self.worst = Best(place, score)

    def _move(self) -> None:
        """The next step of everybody; those who come to a new place are to be scored."""
        self._step += 1
        weary = self._since >= RESTART
        self.places[weary] = np.stack([one.place for one in self.own])[weary]
        self.velocities[weary] = 0.0
        self._since[weary] = 0
        shares = np.random.default_rng([self._seed, 1 + self._step]).random((len(self.places), 4))
        given = self._settings
        self.velocities = velocities(
            self.places,
            self.velocities,
            np.stack([one.place for one in self.own]),
            self.best.place,
            self.worst.place,
            shares * (given.inertia, given.cognitive, given.social, given.repel),
        )
        length = max(STEP * SHORTEN ** (self._step - 1), SHORTEST)
        self.places = (self.places + length * self.velocities).round(DECIMALS)
        self._moving = []
        taken = list(self._known)
        for number, place in enumerate(self.places):
            if not near(place, taken):
                self._moving.append(number)
                taken.append(place)


def velocities(
    places: Float64, before: Float64, own: Float64, best: Float64, worst: Float64, shares: Float64
) -> Float64:
    """``(a v + b (p - x) + c (g - x) - d (w - x)) / (a + b + c + d)`` for each particle, (particles, founders).

    places: ``x``; before: ``v``; own: ``p``, the best place of each; best, worst: ``g`` and ``w`` of all, (founders,);
    shares: ``a``, ``b``, ``c``, ``d`` of each, (particles, 4), drawn and weighted.
    """
    inertia, cognitive, social, repel = (shares[:, place, None] for place in range(4))
    moved = inertia * before + cognitive * (own - places) + social * (best - places) - repel * (worst - places)
    total = shares.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(moved, total, out=np.zeros_like(moved), where=total > 0))


def begin(founders: int, particles: int, random: np.random.Generator) -> Float64:
    """The founders, then points between two of them, drawn evenly: (particles, founders)."""
    places = np.zeros((particles, founders))
    places[:founders] = np.eye(founders)
    for place in places[founders:]:
        one, other = random.choice(founders, 2, replace=False)
        share = random.uniform()
        place[[one, other]] = share, 1.0 - share
    return places.round(DECIMALS)


def toward_others(places: Float64, random: np.random.Generator) -> Float64:
    """From each of ``places`` (particles, founders) to another one."""
    count = len(places)
    others = (np.arange(count) + random.integers(1, count, count)) % count
    return np.asarray(places[others] - places)
