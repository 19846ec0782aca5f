import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from search.history.rank_correlation import rank_correlation

MODELS = "abcdef"
PAIRS = list(combinations(MODELS, 2))


def test_it_is_spearmans_and_the_interval_a_jackknife_over_models() -> None:
    random = np.random.default_rng(3)
    one = random.normal(size=len(PAIRS))
    other = np.round(one + random.normal(size=len(PAIRS)), 1)  # with ties
    found = rank_correlation(one, other, PAIRS)
    assert found is not None
    assert (found.pairs, found.models) == (15, 6)
    assert found.value == pytest.approx(stats.spearmanr(one, other).statistic)
    left = []
    for model in MODELS:
        kept = [place for place, pair in enumerate(PAIRS) if model not in pair]
        left.append(math.atanh(stats.spearmanr(one[kept], other[kept]).statistic))
    error = math.sqrt((6 - 2) / (2 * 6) * sum((value - sum(left) / 6) ** 2 for value in left))
    half = stats.t.ppf(0.975, 5) * error
    ends = [math.tanh(math.atanh(found.value) + side * half) for side in (-1, 1)]
    assert [found.low, found.high] == pytest.approx(ends)


def test_the_interval_covers_the_truth_where_pairs_share_what_their_models_have() -> None:
    """Nothing is related, but both numbers are mostly sums of what each model has: 95 % of intervals hold 0."""
    random = np.random.default_rng(0)
    within = naive = 0
    runs = 200
    for _ in range(runs):
        values = []
        for _ in range(2):
            own = dict(zip(MODELS, random.normal(size=6), strict=True))
            values.append([0.5 * (own[one] + own[other]) + 0.7 * random.normal() for one, other in PAIRS])
        found = rank_correlation(*values, PAIRS)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        within += found.low <= 0 <= found.high
        naive += abs(math.atanh(found.value)) <= 1.96 / math.sqrt(12)
    assert within / runs > 0.93
    assert naive < within  # the usual interval takes pairs for independent


def test_where_there_is_nothing_to_say() -> None:
    assert rank_correlation([1, 2], [1, 2], PAIRS[:2]) is None
    assert rank_correlation([1, 1, 1, 1], [1, 2, 3, 4], PAIRS[:4]) is None
    # Without a, of whom all are, no pair is left.
    found = rank_correlation([1, 2, 3, 4], [1, 2, 4, 3], PAIRS[:4])
    assert found is not None
    assert (found.value, found.low, found.high) == (pytest.approx(0.8), None, None)
    assert "no interval" in str(found)
