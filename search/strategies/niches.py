"""M2N2: merging under competition for documents, partners by attraction (Abrantes et al., arXiv 2508.16204)."""

import math
from collections.abc import Sequence

import numpy as np

from kinship.arrays import Float64
from kinship.checkpoints.module_kinds import module_kind
from kinship.checkpoints.tensor_names import layer_index
from merging.recipe.schema import Recipe
from merging.registry import get_method
from search.strategies.base import Context, Individual, Population, Proposal
from search.strategies.random_search import UNLIMITED
from search.strategies.recipes import recipe_of
from search.strategies.settings import MergeSettings, StrategySettings
from search.strategies.space import group_setting
from search.strategies.span_points import DECIMALS, require_weights


class Niches:
    """An archive of the fittest, who share what a document is worth among all who get it right.

    It begins with the founders. A pair is drawn from it, the first by `shared`, the second by `attraction`; the child
    takes most of one parent up to a tensor and most of the other from there on (`split_recipe`). Where there are more
    than ``archive`` members, the least fit leave. Answers count from the least that the archive has given to a
    document, or from 0, whichever is lower. Who failed or was stopped early joins nobody.
    Cost of a batch: batch x archive x documents. Raises `InvalidConfig` for merges other than by weights.
    """

    def __init__(
        self, settings: StrategySettings, merge: MergeSettings, context: Context, seed: int, budget: int | None
    ) -> None:
        require_weights(merge, settings.name)
        self._settings = settings
        self._context = context
        self._seed = seed
        self._order = layer_order(context.names)
        self._population = Population(context.founders)
        self.members = [founder.id for founder in context.founders if founder.scored and founder.complete]
        self._left = UNLIMITED if budget is None else None
        self._told = 0

    def ask(self) -> list[Proposal]:
        """See `Strategy.ask`."""
        size = self._settings.batch if self._left is None else min(self._settings.batch, self._left)
        if len(self.members) < 2:
            return []
        gains = self._gains()
        return [self._draw(gains, self._told + number) for number in range(size)]

    def tell(self, results: Sequence[Individual]) -> None:
        """See `Strategy.tell`."""
        self._told += self._settings.batch
        for child in results:
            self._population.add(child)
            if child.scored and child.complete:
                self.members.append(child.id)
        while len(self.members) > self._settings.archive:
            ranks = {id: rank for rank, id in enumerate(self._population.ranked())}
            worth = dict(zip(self.members, self._gains().sum(axis=1), strict=True))
            self.members.remove(min(self.members, key=lambda id: (worth[id], -ranks[id])))
        if self._left is not None:
            self._left = max(self._left - self._settings.batch, 0) if results else 0

    def _gains(self) -> Float64:
        answers = [self._context.answers(id) for id in self.members]
        values = np.stack([each.values for each in answers])
        return shared(values - np.minimum(values.min(axis=0), 0.0), answers[0].weights, self._settings.competition)

    def _draw(self, gains: Float64, number: int) -> Proposal:
        random = np.random.default_rng([self._seed, number])
        one = _drawn(gains.sum(axis=1), random)
        pull = attraction(gains, one) if self._settings.attraction else np.ones(len(gains))
        pull[one] = 0.0
        if not pull.any():
            pull = (np.arange(len(gains)) != one).astype(np.float64)
        pair = self.members[one], self.members[_drawn(pull, random)]
        split = int(random.integers(1, max(len(self._order), 2)))
        cosine = self._context.cosine(*pair)
        return Proposal(split_recipe(pair, self._order, split, float(random.uniform()), cosine), "niche")


def shared(answers: Float64, weights: Float64, competition: float) -> Float64:
    """What each member gets of each document: ``c_j s_ij / z_j^alpha``, ``z_j`` the sum of ``s_ij`` over members.

    answers: (members, documents), none negative. weights: (documents,), what each counts in the score. A member's sum
    is its fitness; competition: ``alpha``, at 0 that is its score. Documents that nobody gets right give nothing. Where
    powers leave what float64 holds, all is in a unit of its own.
    """
    totals = answers.sum(axis=0)
    if not totals.any():
        return np.zeros_like(answers)
    with np.errstate(all="ignore"):
        worth = np.divide(weights, totals**competition, out=np.zeros_like(weights), where=totals > 0)
        if not (np.isfinite(worth).all() and worth.any()):  # fitness is compared alone: any scale of it will do
            powers = np.where(totals > 0, np.log(weights) - competition * np.log(totals), -np.inf)
            worth = np.exp(powers - powers.max())
    return np.asarray(answers * worth)


def attraction(gains: Float64, one: int) -> Float64:
    """By how much each member exceeds ``one`` on the documents where it does: ``sum_j max(0, F_Bj - F_Aj)``."""
    return np.asarray(np.maximum(gains - gains[one], 0.0).sum(axis=1))


def split_recipe(pair: tuple[str, str], order: Sequence[str], split: int, t: float, cosine: float) -> Recipe:
    """``pair``'s child: on the arc between their task vectors at ``t`` in the first ``split`` tensors, else at 1-t.

    One angle, that of the whole task vectors with this ``cosine``, serves all tensors: so the child is a point of the
    founders' span in each. The paper takes the angle of the weights, which between fine-tunes of one base is nil.
    """
    before, after = arc(t, cosine), arc(1.0 - t, cosine)
    groups = {"before": order[:split], "after": order[split:]}
    own = [
        (id, {"weight": group_setting({"before": round(one, DECIMALS), "after": round(other, DECIMALS)}, groups)})
        for id, one, other in zip(pair, before, after, strict=True)
    ]
    return recipe_of(get_method("task_arithmetic"), own, {})


def arc(t: float, cosine: float) -> tuple[float, float]:
    """Coefficients of two vectors at ``t`` between them on an arc: ``sin((1-t) w) / sin w`` and ``sin(t w) / sin w``.

    Straight where the angle is none, or a straight one, or unknown.

    >>> arc(0.25, 1.0)
    (0.75, 0.25)
    """
    angle = 0.0 if math.isnan(cosine) else math.acos(min(max(cosine, -1.0), 1.0))
    if math.sin(angle) < 1e-6:
        return 1.0 - t, t
    return math.sin((1.0 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def layer_order(names: Sequence[str]) -> list[str]:
    """Tensors as a text goes through them: embeddings, the layers, what follows them."""

    def place(name: str) -> float:
        index = layer_index(name)
        return index if index is not None else -1 if module_kind(name) == "embeddings" else math.inf

    return sorted(names, key=lambda name: (place(name), name))


def _drawn(weights: Float64, random: np.random.Generator) -> int:
    total = float(weights.sum())
    shares = weights / total if total > 0 else np.full(len(weights), 1 / len(weights))
    return int(random.choice(len(weights), p=shares))
