"""Which pairs of models to merge, by kinship, and by their scores where there are any."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from service.answers.base import Answer, Part, named
from service.answers.given_scores import GivenScores, read_scores
from service.answers.matrix import warn_of_the_rest

if TYPE_CHECKING:
    from kinship.measures.matrix import KinshipMatrix
    from kinship.measures.options import ComparisonOptions
    from search.history.gains import Pair
    from search.history.rank_correlation import RankCorrelation


class PairAdvice(Part):
    """Two models, and what merging them may bring."""

    pair: tuple[str, str]
    """The references of the two."""
    kinship: float
    """By the metric asked for."""
    relation: str
    """What such models are called: ``nearly unrelated``, ``distant``, ``related`` or ``alike``."""
    reason: str
    """Why the pair has its place, by kinship."""
    scores: tuple[float, float] | None = None
    """Of the two, where scores were given."""
    expected: float | None = None
    """The score of their merge, where recorded merges can tell."""


class Worth(Part):
    """How far the order of recorded merges of two founders could be told beforehand, each from the others."""

    merges: int
    """How many."""
    models: int
    """That were merged in them."""
    correlation: float
    """Of ranks, of predicted with found gain."""
    low: float | None
    """Where the interval begins (jackknife over models); null where too few are left without one of them."""
    high: float | None
    """Where it ends."""
    level: float
    """Confidence of the interval."""


class Advice(Answer):
    """Pairs to merge, by kinship, or by kinship and scores."""

    schema_: Literal["kinship.advice/2"] = named("kinship.advice/2")
    metric: str
    """``pcc`` or ``cosine``."""
    base: str
    """The reference of the base, as given."""
    pairs: list[PairAdvice]
    """All of them, the most promising first."""
    order: Literal["kinship", "ranks", "expected"]
    """``kinship``: the least related first; ``ranks``: by the sum of two ranks, least related and highest mean score;
    ``expected``: by expected score, where recorded merges show that it can be told."""
    scores: str | None = None
    """Where scores are from, as given."""
    worth: Worth | None = None
    """What such advice was worth on the merges at hand; null where there are too few."""
    evidence: str
    """What the order is worth, in words."""

    @classmethod
    def of(cls, matrix: "KinshipMatrix", given: GivenScores | None = None) -> Self:
        """The advice that follows from ``matrix``, and from scores of its models.

        Raises `InvalidConfig` for a metric other than pcc and cosine, and for a model without a score.
        """
        from kinship.measures.advice import EVIDENCE, advise

        advice = advise(matrix)
        if given is None:
            pairs = [PairAdvice.model_validate(vars(one)) for one in advice]
            return cls(metric=matrix.metric, base=matrix.base, pairs=pairs, order="kinship", evidence=EVIDENCE)

        from search.history.gains import GainModel, Pair, worth

        scores = given.of(matrix.ids)
        known = [Pair(one.pair, one.kinship, (scores[one.pair[0]], scores[one.pair[1]])) for one in advice]
        found = worth(given.merges)
        told = found is not None and found.low is not None and found.low > 0
        expected: list[float | None] = [None] * len(known)
        if told:
            gains = GainModel.fit(given.merges).expected(known)
            expected = [pair.mean + float(gain) for pair, gain in zip(known, gains, strict=True)]
        keys = [-(value or 0.0) for value in expected] if told else _ranks(known)
        ordered = sorted(range(len(known)), key=lambda place: keys[place])  # of equals, the less related first
        pairs = [
            PairAdvice.model_validate(
                {**vars(advice[place]), "scores": known[place].scores, "expected": expected[place]}
            )
            for place in ordered
        ]
        return cls(
            metric=matrix.metric,
            base=matrix.base,
            pairs=pairs,
            order="expected" if told else "ranks",
            scores=given.source,
            worth=found and _worth(found),
            evidence=f"{_told(given, found)} {EVIDENCE}",
        )


def advise_pairs(
    models: Sequence[str | Path],
    base: str | Path,
    metric: str = "pcc",
    options: "ComparisonOptions | None" = None,
    *,
    scores: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Advice:
    """Every pair of ``models``, fine-tunes of ``base``, the most promising first.

    ``scores``: a CSV with the columns model and score, what `kinship score --json` printed, or a run, whose merges then
    tell what such advice is worth; without it, the least related come first. Warns of tensors that were not compared.
    Raises what `kinship.measures.comparison.compare` raises, `InvalidConfig` for a metric but pcc and cosine and for
    models without a score, and what `service.answers.given_scores.read_scores` raises.
    """
    from kinship.measures.advice import require_similarity
    from kinship.measures.comparison import compare
    from kinship.measures.options import DEFAULTS

    require_similarity(metric)  # before anything is read
    given = None if scores is None else read_scores(str(scores), metric)
    if given is not None:
        given.of([str(model) for model in models])
    found = compare(models, base, metric, options or DEFAULTS, progress)
    warn_of_the_rest(found)
    return Advice.of(found.matrix(), given)


def _ranks(pairs: "Sequence[Pair]") -> list[float]:
    """The place of each pair among the least related and among the highest mean scores, added."""
    from scipy.stats import rankdata

    if not pairs:
        return []
    places = rankdata([pair.kinship for pair in pairs]) + rankdata([-pair.mean for pair in pairs])
    return [float(place) for place in places]


def _worth(found: "RankCorrelation") -> Worth:
    from search.history.rank_correlation import LEVEL

    return Worth(
        merges=found.pairs,
        models=found.models,
        correlation=found.value,
        low=found.low,
        high=found.high,
        level=LEVEL,
    )


def _told(given: GivenScores, found: "RankCorrelation | None") -> str:
    """What the merges at hand say of an order by kinship and scores."""
    if not given.is_run:
        return f"{given.source} has scores and no merges: there is no evidence at hand what this order is worth."
    if found is None:
        return (
            f"{given.source} has {len(given.merges)} merges of two founders to learn from, which is too few: there is "
            "no evidence at hand what this order is worth."
        )
    said = (
        f"Of the merges of two founders in {given.source}, each predicted from the others by kinship and scores, "
        f"predicted and found gain have a rank correlation of {found}"
    )
    if found.low is not None and found.low > 0:
        return f"{said}: the order by expected score rests on that."
    return f"{said}: nothing here predicts the gain, and the order is by both ranks, least related and highest mean."
