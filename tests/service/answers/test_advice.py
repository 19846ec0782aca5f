"""Advice by kinship and scores, and what it was worth on merges at hand."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kinship.errors import InvalidConfig
from service.answers.advice import Advice, advise_pairs
from tests.conftest import MakeModel
from tests.search.runs import LINEAR, SHAPES, Scene
from tests.service.conftest import Kinship

Models = tuple[list[Path], Path]


@pytest.fixture
def models(make_model: Callable[..., Path]) -> Models:
    """Two that have much in common, and two that have nothing."""
    base = make_model("base")
    near = make_model("near", seed=1, base=base)
    return [
        near,
        make_model("same", seed=1, base=near),
        *(make_model(f"far{n}", seed=n, base=base) for n in (2, 3)),
    ], base


def table(folder: Path, **scores: float) -> Path:
    file = folder / "scores.csv"
    file.write_text("model,score\n" + "".join(f"{name},{score}\n" for name, score in scores.items()))
    return file


def names(advice: Advice) -> list[set[str]]:
    return [{Path(model).name for model in pair.pair} for pair in advice.pairs]


def test_without_scores_the_least_related_come_first(models: Models) -> None:
    advice = advise_pairs(*models)
    assert (advice.order, advice.scores, advice.worth) == ("kinship", None, None)
    assert names(advice)[-1] == {"near", "same"}
    assert all(pair.scores is None and pair.expected is None for pair in advice.pairs)


def test_scores_without_merges_count_as_much_as_kinship_and_prove_nothing(models: Models, tmp_path: Path) -> None:
    scores = {"near": 0.9, "same": 0.8, "far2": 0.2, "far3": 0.15}
    file = table(tmp_path, **scores)
    plain, advice = advise_pairs(*models), advise_pairs(*models, scores=file)
    assert (advice.order, advice.scores, advice.worth) == ("ranks", str(file), None)
    assert "no evidence" in advice.evidence
    by_kinship = [pair.pair for pair in plain.pairs]
    mean = {pair.pair: sum(pair.scores or ()) / 2 for pair in advice.pairs}
    by_mean = sorted(mean, key=lambda pair: -mean[pair])
    assert list(mean) != by_kinship
    assert list(mean) == sorted(by_kinship, key=lambda pair: by_kinship.index(pair) + by_mean.index(pair))
    for pair in advice.pairs:
        assert pair.scores == tuple(scores[Path(model).name] for model in pair.pair)


def test_a_model_without_a_score_is_named_before_anything_is_read(models: Models, tmp_path: Path) -> None:
    file = table(tmp_path, near=1, same=1, far2=1)
    told: list[int] = []
    with pytest.raises(InvalidConfig, match=r"no score of .*far3"):
        advise_pairs(*models, scores=file, progress=lambda done, of: told.append(done))
    assert not told
    with pytest.raises(InvalidConfig, match="similarity"):
        advise_pairs(*models, "euclidean", scores=file)


@pytest.fixture
def scene(make_model: MakeModel, tmp_path: Path) -> Scene:
    """Six founders, of 15 pairs."""
    base = make_model("the-base", shapes=SHAPES)
    founders = {f"f{seed}": make_model(f"f{seed}", seed, base, shapes=SHAPES, size=0.05 * seed) for seed in range(1, 7)}
    return Scene(tmp_path, base, founders)


def test_a_run_tells_what_the_advice_was_worth(scene: Scene, kinship: Kinship) -> None:
    scene.run("run", scene.config(strategy={"variant": "kinship"}, merge=LINEAR, stop={"generations": 2}))
    founders = [str(path) for path in scene.founders.values()]
    run = scene.folder / "run"
    answer = advise_pairs(founders, scene.base, scores=run)
    export = scene.export("run")
    scores = {person["id"]: person["scores"]["search"]["value"] for person in export["individuals"]}
    by_path = {str(path): scores[name] for name, path in scene.founders.items()}
    assert all(pair.scores == tuple(by_path[model] for model in pair.pair) for pair in answer.pairs)
    assert answer.worth is not None
    assert (answer.worth.merges, answer.worth.models) == (15, 6)
    assert f"{answer.worth.correlation:+.2f}" in answer.evidence
    told = answer.worth.low is not None and answer.worth.low > 0
    assert answer.order == ("expected" if told else "ranks")
    assert all((pair.expected is not None) == told for pair in answer.pairs)

    printed = kinship("advise", *founders, "--base", scene.base, "--scores", run, "--json").out
    assert json.loads(printed) == json.loads(answer.to_json())
    shown = " ".join(kinship("advise", *founders, "--base", scene.base, "--scores", run).out.split())
    assert "rank correlation" in shown


def test_a_run_of_few_founders_is_no_evidence(scene: Scene) -> None:
    few = Scene(scene.folder, scene.base, dict(list(scene.founders.items())[:3]))
    few.run("run", few.config(stop={"generations": 1}))
    answer = advise_pairs([str(path) for path in few.founders.values()], few.base, scores=few.folder / "run")
    assert (answer.order, answer.worth) == ("ranks", None)
    assert "3 merges of two founders to learn from, which is too few" in answer.evidence


def test_where_gains_can_be_told_the_order_is_by_expected_score(scene: Scene) -> None:
    from search.history.gains import Merge, Pair
    from service.answers.given_scores import GivenScores

    founders = [str(path) for path in scene.founders.values()]
    plain = advise_pairs(founders, scene.base)
    merges = [
        Merge(Pair((f"{one}", f"{one + step}"), one / 20 + step / 100, (0.5, 0.5)), one / 20 + step / 100)
        for one in range(10)
        for step in (1, 2, 3)
    ]  # the more related, the better, which is known for sure
    scores = dict.fromkeys(founders, 0.5)
    from kinship import kinship_matrix

    matrix = kinship_matrix(founders, scene.base)
    answer = Advice.of(matrix, GivenScores("there", scores, merges, is_run=True))
    assert answer.order == "expected"
    assert [pair.pair for pair in answer.pairs] == [pair.pair for pair in plain.pairs[::-1]]
    expected = [pair.expected or 0 for pair in answer.pairs]
    assert expected == sorted(expected, reverse=True)
