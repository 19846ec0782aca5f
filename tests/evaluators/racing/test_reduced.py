import math

import numpy as np
import pytest

from evaluators.racing.reduced import pick
from tests.evaluators.racing_data import TASKS, make_results, part, true_score

KNOWN = {f"m{number}": -1.0 + 0.25 * number for number in range(9)}
SIZES = {"large": 24, "small": 8}


@pytest.mark.parametrize("binary", [True, False])
def test_a_part_of_each_task_and_an_estimate_near_the_score(binary: bool) -> None:
    results = make_results(KNOWN | {"new": 0.6}, 0, binary=binary, noise=0.5)
    subset = pick({id: results[id] for id in KNOWN}, TASKS, 0.1)
    assert {task: len(set(ids)) for task, ids in subset.documents.items()} == SIZES
    assert all(set(ids) <= set(TASKS[task]) for task, ids in subset.documents.items())
    assert set(subset.errors) == {"sample", "regression"} | ({"information"} if binary else set())
    assert subset.error == min(subset.errors.values())
    found = subset.estimate(part(results["new"], subset.documents))
    assert found.stderr == subset.error
    assert abs(found.value - true_score(results["new"])) < 4 * found.stderr


def test_known_models_help_where_they_are_informative() -> None:
    """With little noise of their own, models are told apart by the documents at the edge of their abilities."""
    errors, foretold, plain = [], [], []
    for seed in range(3):
        results = make_results(KNOWN | {"new": 0.1, "other": 0.9}, seed, noise=0.2)
        subset = pick({id: results[id] for id in KNOWN}, TASKS, 0.1, seed)
        assert subset.way != "sample"
        new = [results[id] for id in ("new", "other")]
        errors += [subset.estimate(part(model, subset.documents)).value - true_score(model) for model in new]
        foretold.append(subset.error)
        plain.append(subset.errors["sample"])
    assert np.mean(foretold) < 0.7 * np.mean(plain)
    assert np.sqrt(np.mean(np.square(errors))) < 2.5 * np.mean(foretold)


def test_it_falls_back_to_a_sample_where_models_have_nothing_in_common() -> None:
    generator = np.random.default_rng(0)
    tasks = {"noise": range(400)}
    results = {
        f"m{number}": {"noise": dict(enumerate((generator.random(400) < generator.random()).astype(float).tolist()))}
        for number in range(8)
    }
    subset = pick(results, tasks, 0.2, seed=1)
    assert subset.error == subset.errors[subset.way] <= subset.errors["sample"]
    # Nothing can do much better than a sample of documents that have nothing to do with each other.
    assert subset.error > 0.6 * subset.errors["sample"]


def test_without_models_to_learn_from_it_is_a_sample() -> None:
    results = make_results({"a": 0.0, "b": 0.4, "new": 0.2}, 3)
    subset = pick({id: results[id] for id in ("a", "b")}, TASKS, 0.5)
    assert subset.way == "sample"
    assert math.isnan(subset.error)
    found = subset.estimate(part(results["new"], subset.documents))
    means = [np.mean(list(values.values())) for values in part(results["new"], subset.documents).values()]
    assert found.value == pytest.approx(np.mean(means))
    assert abs(found.value - true_score(results["new"])) < 4 * found.stderr < 0.3


def test_all_documents_give_the_score_itself() -> None:
    results = make_results(KNOWN, 4)
    subset = pick(results, TASKS, 1.0)
    assert subset.error == pytest.approx(0, abs=1e-12)
    assert subset.estimate(results["m3"]).value == pytest.approx(true_score(results["m3"]))


def test_the_same_seed_picks_the_same() -> None:
    results = make_results(KNOWN, 5)
    one, other = pick(results, TASKS, 0.1, 7), pick(dict(reversed(results.items())), TASKS, 0.1, 7)
    assert one.documents == other.documents
    assert one.errors == other.errors


def test_bad_input_is_refused() -> None:
    results = make_results(KNOWN, 6)
    with pytest.raises(ValueError, match="share"):
        pick(results, TASKS, 0.0)
    with pytest.raises(KeyError):
        pick({**results, "m0": {"large": {}, "small": {}}}, TASKS, 0.1)
    subset = pick({id: results[id] for id in ("m0", "m1")}, TASKS, 0.1)
    with pytest.raises(KeyError):
        subset.estimate({"large": {}, "small": {}})
