"""What families are judged by when a kind is left out."""

import numpy as np

from kinship.heritage.descent import FAMILIAR, LEAST, UNSURE, WEIGHTS, confidence
from kinship.heritage.signals import NAMES, ROOTS
from tests.kinship.heritage.calibration import nearest_ancestor, training
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


def test_what_is_left_out_is_not_trained_on() -> None:
    assert training({"one": [], "other": []}, "one") == []
