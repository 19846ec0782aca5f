"""What families are judged by when a kind is left out."""

from collections.abc import Sequence

import numpy as np

from kinship.heritage.descent import FAMILIAR, FOUNDER, LEAST, UNSURE, WEIGHTS, confidence
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
    assert list(FOUNDER) == [*ROOTS]
    assert set(FAMILIAR) <= set(NAMES)


def signal(names: Sequence[str], **values: float) -> np.ndarray:
    return np.array([values.get(name, 0.0) for name in names])


def test_confidence_falls_where_signals_are_strange_and_where_the_base_is_not_known() -> None:
    usual, other = signal(NAMES), signal(ROOTS)
    assert confidence(0.99, usual, signal(ROOTS, not_base=1), 0.0) == 0.99
    assert confidence(0.99, signal(NAMES, from_base=1), other, 0.0) == 0.99
    assert LEAST < confidence(0.99, usual, other, 0.0) <= UNSURE
    assert LEAST <= confidence(0.99, signal(NAMES, offshoot=0.5), signal(ROOTS, not_base=1), 0.0) < 0.9


def test_without_the_base_rows_or_growth_make_an_edge_sure() -> None:
    usual, other = signal(NAMES), signal(ROOTS)
    assert confidence(0.99, signal(NAMES, shorter=0.5, kept_most=1), other, 0.0) == 0.99
    # Decay alone tells which of two siblings was trained longer, of rows that all of them have.
    assert confidence(0.99, signal(NAMES, shorter=0.5), other, 0.0) <= UNSURE
    assert confidence(0.99, usual, signal(ROOTS, clock=0.5), 0.99) == 0.99
    assert confidence(0.99, usual, signal(ROOTS, clock=0.5), 0.5) <= UNSURE
    assert confidence(0.99, usual, signal(ROOTS, clock=0.05), 0.99) <= UNSURE


def test_what_is_left_out_is_not_trained_on() -> None:
    assert training({"one": [], "other": []}, "one") == []
