"""What families are judged by when a kind is left out."""

import numpy as np

from kinship.heritage.descent import FAMILIAR, LEAST, ODDS, SINGLE, UNSURE, WEIGHTS, branch, confidence, options
from kinship.heritage.signals import NAMES, ROOTS
from tests.kinship.heritage.calibration import Asked, judged, nearest_ancestor, training
from tests.kinship.heritage.fitting import Case
from tests.kinship.heritage.growth import Grown, Member


def test_the_parent_is_the_nearest_ancestor_that_is_here() -> None:
    members = [Member("base", "base"), Member("a", "finetune", ("base",)), Member("b", "finetune", ("a",))]
    grown = Grown([*members, Member("c", "finetune", ("b",))], {})
    assert nearest_ancestor(grown, ["base", "a", "b", "c"], 3) == 2
    assert nearest_ancestor(grown, ["base", "c"], 1) == 0
    assert nearest_ancestor(grown, ["b", "a"], 1) is None


def test_every_signal_has_a_weight_and_what_is_familiar_is_a_signal() -> None:
    assert list(WEIGHTS) == [*NAMES, *ROOTS]
    assert set(FAMILIAR) <= set(NAMES)


def test_confidence_falls_where_signals_are_strange_and_where_the_base_is_not_known() -> None:
    usual = np.zeros(len(NAMES))
    assert confidence(0.99, usual, unknown=False) == 0.99
    assert LEAST < confidence(0.99, usual, unknown=True) <= UNSURE
    decayed, strange = usual.copy(), usual.copy()
    decayed[NAMES.index("shorter")] = 0.5
    strange[NAMES.index("offshoot")] = 0.5
    assert confidence(0.99, decayed, unknown=True) == 0.99
    assert LEAST <= confidence(0.99, strange, unknown=False) < 0.9


def test_families_are_judged_by_what_users_are_shown() -> None:
    """By the weights in use, edges and confidences are those of `branch`."""
    random = np.random.default_rng(0)
    for known in (0.0, 1.0):
        edges = random.normal(0, 0.2, (4, 4, len(NAMES))) * (1 - np.eye(4))[..., None]
        roots = random.normal(0, 0.2, (4, len(ROOTS)))
        roots[:, ROOTS.index("not_base")] = known * np.array([0, 1, 1, 1])
        edges[..., NAMES.index("from_base")] = 0.0
        edges[0, 1:, NAMES.index("from_base")] = known
        choice = options(edges, range(4), range(4), [])
        shown = branch(edges, roots, range(4), range(4), [])
        parents = {child: parent for child, (parent, _) in shown.items()}
        one = Asked("any", Case(edges, roots, choice, choice), {child: parents.get(child) for child in range(4)})
        weights = np.array([*WEIGHTS.values(), SINGLE]).T
        judgements = judged(one, weights, np.array(ODDS))
        assert [right for _, right in judgements] == [True] * len(shown)
        assert sorted(sure for sure, _ in judgements) == sorted(sure for _, sure in shown.values())
        assert shown


def test_what_is_left_out_is_not_trained_on() -> None:
    assert training({"one": [], "other": []}, "one") == []
