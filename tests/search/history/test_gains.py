"""Gains of merges told from those on record."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from search.history.gains import EXPECTATION, GainModel, Merge, Pair, left_out_errors, recorded_merges, worth
from search.ledger.ledger import Ledger
from tests.conftest import MakeModel
from tests.search.runs import LINEAR, make_scene


def merges(random: np.random.Generator, *, slope: float, noise: float, count: int = 7) -> list[Merge]:
    """All pairs of models, whose gain is ``slope`` times kinship, and noise."""
    scores = dict(zip("abcdefghij"[:count], random.uniform(0.4, 0.6, count), strict=True))
    found = []
    for one, other in combinations(scores, 2):
        pair = Pair((one, other), random.uniform(0, 1), (scores[one], scores[other]))
        found.append(Merge(pair, slope * pair.kinship + noise * random.normal()))
    return found


def test_what_gains_follow_is_found() -> None:
    random = np.random.default_rng(0)
    known, new = merges(random, slope=-0.3, noise=0.001), merges(random, slope=-0.3, noise=0)
    expected = GainModel.fit(known).expected([merge.pair for merge in new])
    assert np.corrcoef(expected, [merge.gain for merge in new])[0, 1] > 0.99
    found = worth(known)
    assert found is not None
    assert found.low is not None
    assert found.low > 0.9


def test_noise_is_worth_nothing_and_not_less() -> None:
    """Left out one by one, good merges lower the mean of the rest, which alone would show as a negative correlation."""
    values, sure = [], 0
    for seed in range(60):
        found = worth(merges(np.random.default_rng(seed), slope=0, noise=1))
        assert found is not None
        assert found.low is not None
        values.append(found.value)
        sure += found.low > 0
    assert abs(np.mean(values)) < 0.1
    assert sure <= 6


def test_too_few_merges_tell_nothing() -> None:
    known = merges(np.random.default_rng(0), slope=-1, noise=0)
    assert worth(known[:5]) is None
    assert worth(known[:6]) is not None


def test_what_a_run_has_recorded(make_model: MakeModel, tmp_path: Path) -> None:
    scene = make_scene(make_model, tmp_path)
    scene.run("run", scene.config(strategy={"variant": "kinship", "scale_steps": 2}, merge=LINEAR))
    with Ledger.of_run(scene.folder / "run") as ledger:
        facts = ledger.facts()
        assert facts is not None
        by_pcc, by_cosine = (recorded_merges(ledger, facts, metric) for metric in ("pcc", "cosine"))
    people = {person["id"]: person for person in scene.export("run")["individuals"]}
    expected = [person for person in people.values() if person["generation"] == 1]
    assert len(expected) == 3 < len(people)  # later ones, and what only the scale was sought for, do not count
    assert [list(merge.pair.models) for merge in by_pcc] == [person["parents"] for person in expected]
    for merge, person in zip(by_pcc, expected, strict=True):
        assert merge.gain == pytest.approx(person["merge_gain"])
        assert merge.pair.kinship == pytest.approx(person["kinship_of_parents"])
    assert [merge.gain for merge in by_cosine] == [merge.gain for merge in by_pcc]
    assert [merge.pair.kinship for merge in by_cosine] != [merge.pair.kinship for merge in by_pcc]


def test_what_a_run_gains_is_predicted_no_better_than_by_the_mean_of_other_families() -> None:
    """The figures that a dry run tells, from those on record; where they change, so must the sentence."""
    record = json.loads((Path(__file__).parents[3] / "docs/images/partner-control.json").read_text())
    families = record["families"].values()
    scores = np.array([[family["founder"]] for family in families])
    gains = np.array([family["vanilla"] - family["founder"] for family in families])
    by_model, by_mean = left_out_errors(scores, gains)
    assert by_model > by_mean
    assert len(gains) == 5
    assert f"errs by {by_model:.2f} points, their mean gain alone by {by_mean:.2f}" in EXPECTATION
