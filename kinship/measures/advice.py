"""Which pairs to merge, by kinship, in plain words; and what that advice is worth."""

import math
from dataclasses import dataclass
from itertools import combinations

from kinship.errors import InvalidConfig
from kinship.measures.matrix import KinshipMatrix
from kinship.measures.metrics import get_metric

EVIDENCE = (
    "Kinship is weak evidence. In the published merges (Hu et al., arXiv 2410.12613) it correlates with merge gain at "
    "-0.5 (signed) and -0.6 (absolute gain) over the 14 merges of one path; over the 23 distinct merges of both paths "
    "at -0.9, carried by one point, and at -0.55 without it. Score the children; do not trust the order."
)

# Up to which kinship a pair is called what, and why it is worth merging or not.
_BANDS = (
    (0.1, "nearly unrelated", "they changed different things: the most to gain, and the most to lose to interference"),
    (0.5, "distant", "much of what one learned is new to the other: a good place to explore"),
    (0.9, "related", "they share much: a safe merge with a moderate gain at best"),
    (1.01, "alike", "they are nearly the same model: a merge will change little"),
)


@dataclass(frozen=True)
class Advice:
    """A pair with its kinship, and the reason for its place."""

    pair: tuple[str, str]
    kinship: float
    relation: str
    reason: str


def advise(matrix: KinshipMatrix) -> list[Advice]:
    """Every pair, the least related first. Pairs without a value are left out.

    Raises `InvalidConfig` for a metric on which the bands are not defined.
    """
    require_similarity(matrix.metric)
    pairs = [(matrix[pair], pair) for pair in combinations(matrix.ids, 2)]
    return [Advice(pair, value, *_band(value)) for value, pair in sorted(pairs) if not math.isnan(value)]


def require_similarity(metric: str) -> None:
    """Raise `InvalidConfig` for a metric on which the bands are not defined."""
    spec = get_metric(metric)
    if spec.unrelated != 0.0:  # the bands are on its scale
        raise InvalidConfig(
            f"Advice needs a similarity by pcc or cosine, not the {spec.label}.", hint="Use --metric pcc."
        )


def _band(value: float) -> tuple[str, str]:
    return next((relation, reason) for limit, relation, reason in _BANDS if value <= limit)
