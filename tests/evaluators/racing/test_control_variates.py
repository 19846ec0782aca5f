import numpy as np
import pytest

from evaluators.racing.control_variates import Panel, extrapolate
from evaluators.scores.score import Score, TaskScore
from tests.evaluators.racing_data import TASKS, make_results, true_score

ABILITIES = {"a": -0.5, "b": 0.0, "c": 0.3, "d": 0.6, "e": 0.1}
NEW = {"x": 0.2, "y": 0.9}


def make_panel(seed: int, **options: bool) -> tuple[Panel, list[object]]:
    results = make_results(ABILITIES | NEW, seed, **options)
    return Panel.of(TASKS, {id: results[id] for id in ABILITIES}), [results[id] for id in NEW]


def rows_of(panel: Panel, share: float, seed: int) -> np.ndarray:
    orders = panel.shuffled(np.random.default_rng(seed))
    return np.sort(np.concatenate([order[: round(share * len(order))] for order in orders]))


@pytest.mark.parametrize("binary", [True, False])
def test_with_all_documents_the_score_is_exact(binary: bool) -> None:
    panel, new = make_panel(0, binary=binary)
    rows = np.arange(len(panel.weights))
    scores, covariance = extrapolate(panel, rows, panel.values(new, rows))
    score = Score(tuple(TaskScore.of(task, new[0][task]) for task in TASKS))
    assert scores == pytest.approx([score.value, true_score(new[1])], rel=1e-12)
    assert not covariance.any()
    assert panel.scores(new) == pytest.approx(scores, rel=1e-12)


def test_tasks_count_as_their_shares_say() -> None:
    results = make_results(ABILITIES, 1)
    panel = Panel.of(TASKS, results, {"large": 0.9, "small": 0.1})
    means = [np.mean(list(results["a"][task].values())) for task in TASKS]
    assert panel.scores([results["a"]])[0] == pytest.approx(0.9 * means[0] + 0.1 * means[1])


def test_a_model_like_a_known_one_is_foretold() -> None:
    panel, _ = make_panel(2, binary=False)
    twin = make_results(ABILITIES | NEW, 2, binary=False)["d"]
    rows = rows_of(panel, 0.3, 0)
    scores, covariance = extrapolate(panel, rows, panel.values([twin], rows))
    assert scores[0] == pytest.approx(true_score(twin), abs=0.02)
    plain = np.mean([np.mean([twin[t][d] for d in ids]) for t, ids in panel.by_task(rows).items()])
    assert abs(scores[0] - true_score(twin)) < abs(plain - true_score(twin)) / 5
    assert covariance[0, 0] < 0.02**2


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("share", [0.2, 0.5])
def test_errors_are_as_large_as_they_say(binary: bool, share: float) -> None:
    """Over many draws: deviations in units of their standard errors, alone and of the difference of two."""
    deviations = []
    plain_errors, errors = [], []
    for seed in range(60):
        panel, new = make_panel(seed, binary=binary)
        rows = rows_of(panel, share, seed)
        values = panel.values(new, rows)
        scores, covariance = extrapolate(panel, rows, values)
        truth = np.array([true_score(model) for model in new])
        contrast = np.array([1.0, -1.0])
        deviations.append((scores - truth) @ contrast / np.sqrt(contrast @ covariance @ contrast))
        deviations.append((scores[0] - truth[0]) / np.sqrt(covariance[0, 0]))
        errors.append(scores - truth)
        sample = np.sort(np.random.default_rng(seed).permutation(len(panel.weights))[: len(rows)])
        means = [
            [np.mean([model[task][document] for document in ids]) for task, ids in panel.by_task(sample).items()]
            for model in new
        ]
        plain_errors.append(np.mean(means, axis=1) - truth)
    assert 0.7 < np.sqrt(np.mean(np.square(deviations))) < 1.35
    assert np.square(errors).mean() < 0.9 * np.square(plain_errors).mean()


def test_doubtful_documents_come_earlier_and_none_is_lost() -> None:
    panel, _ = make_panel(3)
    first, second = panel.shuffled(np.random.default_rng(0))
    assert sorted(first) == list(range(240))
    assert sorted(second) == list(range(240, 320))
    assert panel.doubt[first[:80]].mean() > 1.2 * panel.doubt[first[-80:]].mean()
    for task in range(2):
        assert panel.doubt[panel.stratum == task].mean() == pytest.approx(1)


def test_without_known_models_it_is_the_stratified_mean() -> None:
    panel = Panel.of(TASKS, {})
    (model,) = make_results({"x": 0.0}, 4, binary=False).values()
    rows = rows_of(panel, 0.5, 0)
    scores, covariance = extrapolate(panel, rows, panel.values([model], rows))
    values = [[model[task][document] for document in ids] for task, ids in panel.by_task(rows).items()]
    assert scores[0] == pytest.approx(np.mean([np.mean(part) for part in values]), abs=0.03)
    classic = np.sqrt(sum(np.var(part, ddof=1) / len(part) * 0.5 for part in values)) / 2
    assert np.sqrt(covariance[0, 0]) == pytest.approx(classic, rel=0.15)


def test_metrics_of_unlike_units_live_together() -> None:
    results = make_results(ABILITIES | NEW, 5)
    stretched = {
        id: {"large": model["large"], "small": {d: -300 + 50 * v for d, v in model["small"].items()}}
        for id, model in results.items()
    }
    panel = Panel.of(TASKS, {id: stretched[id] for id in ABILITIES})
    rows = rows_of(panel, 0.4, 0)
    scores, covariance = extrapolate(panel, rows, panel.values([stretched["x"]], rows))
    assert abs(scores[0] - true_score(stretched["x"])) < 3 * np.sqrt(covariance[0, 0]) < 20


def test_all_models_alike_and_settled() -> None:
    same = {"large": dict.fromkeys(TASKS["large"], 1.0), "small": dict.fromkeys(TASKS["small"], 1.0)}
    panel = Panel.of(TASKS, {"a": same, "b": same})
    rows = rows_of(panel, 0.2, 0)
    scores, covariance = extrapolate(panel, rows, panel.values([same, same], rows))
    assert scores == pytest.approx([1.0, 1.0])
    assert np.all(np.abs(covariance) < 1e-12)


def test_a_missing_document_is_named() -> None:
    results = make_results(ABILITIES, 6)
    incomplete = {"large": dict(results["a"]["large"]), "small": {0: 1.0}}
    with pytest.raises(KeyError):
        Panel.of(TASKS, {**results, "a": incomplete})
