import math
from pathlib import Path

import pytest

from evaluators.base import Candidate
from evaluators.cache import ScoreCache
from evaluators.cached import CachedEvaluator
from evaluators.scores.score import Estimate
from kinship.errors import EvaluationFailed
from tests.evaluators.fakes import CountingEvaluator, fake_candidate, fake_task


def test_score_is_made_of_the_evaluators_values(tmp_path: Path) -> None:
    tasks = [fake_task("one"), fake_task("three", "other digest", (8, 9))]
    evaluator = CountingEvaluator(tasks)
    score = CachedEvaluator(evaluator, ScoreCache(tmp_path / "scores.sqlite")).score(fake_candidate("model"), "search")
    assert [(task.task, task.documents) for task in score.tasks] == [("one", (0, 1, 2, 3)), ("three", (8, 9))]
    assert score.tasks[1].values == pytest.approx((5 + 8 / 7 + 5 / 3, 5 + 9 / 7 + 5 / 3))
    assert evaluator.calls == [("model", {"one": [0, 1, 2, 3], "three": [8, 9]})]


def test_the_second_call_runs_nothing(tmp_path: Path) -> None:
    evaluator = CountingEvaluator([fake_task()])
    first = CachedEvaluator(evaluator, ScoreCache(tmp_path / "scores.sqlite")).score(fake_candidate(), "search")
    second = CachedEvaluator(evaluator, ScoreCache(tmp_path / "scores.sqlite")).score(
        fake_candidate("renamed"), "search"
    )
    assert second == first
    assert len(evaluator.calls) == 1


def test_two_models_with_one_cache_are_both_run(tmp_path: Path) -> None:
    evaluator = CountingEvaluator([fake_task()])
    scorer = CachedEvaluator(evaluator, ScoreCache(tmp_path / "scores.sqlite"))
    short = scorer.score(fake_candidate("a", "identity of a"), "search")
    long = scorer.score(fake_candidate("longer", "identity of the longer"), "search")
    assert long.value == pytest.approx(short.value + 5)
    assert [id for id, _ in evaluator.calls] == ["a", "longer"]


def test_a_larger_limit_runs_only_what_is_missing(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "scores.sqlite")
    CachedEvaluator(CountingEvaluator([fake_task(search=(1, 3))]), cache).score(fake_candidate(), "search")
    evaluator = CountingEvaluator([fake_task(search=(0, 1, 2, 3, 4))])
    score = CachedEvaluator(evaluator, cache).score(fake_candidate(), "search")
    assert evaluator.calls == [("model", {"fake": [0, 2, 4]})]
    assert score == CachedEvaluator(CountingEvaluator([fake_task(search=(0, 1, 2, 3, 4))])).score(
        fake_candidate(), "search"
    )
    fewer = CachedEvaluator(evaluator, cache).score(fake_candidate(), "search")
    assert fewer == score
    assert len(evaluator.calls) == 1


def test_a_smaller_limit_takes_only_its_documents(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "scores.sqlite")
    CachedEvaluator(CountingEvaluator([fake_task(search=(0, 1, 2, 3))]), cache).score(fake_candidate(), "search")
    evaluator = CountingEvaluator([fake_task(search=(1, 2))])
    score = CachedEvaluator(evaluator, cache).score(fake_candidate(), "search")
    assert score.tasks[0].documents == (1, 2)
    assert evaluator.calls == []


def test_splits_are_scored_each_on_its_own(tmp_path: Path) -> None:
    evaluator = CountingEvaluator([fake_task()])
    scorer = CachedEvaluator(evaluator, ScoreCache(tmp_path / "scores.sqlite"))
    assert scorer.score(fake_candidate(), "search").tasks[0].documents == (0, 1, 2, 3)
    assert evaluator.calls[-1] == ("model", {"fake": [0, 1, 2, 3]})
    assert scorer.score(fake_candidate(), "held_out").tasks[0].documents == (100, 101)
    assert evaluator.calls[-1] == ("model", {"fake": [100, 101]})


def test_without_a_cache_every_call_runs() -> None:
    evaluator = CountingEvaluator([fake_task()])
    for _ in range(2):
        CachedEvaluator(evaluator).score(fake_candidate(), "search")
    assert len(evaluator.calls) == 2


class NotANumber(CountingEvaluator):
    def value(self, candidate: Candidate, task: str, document: int) -> float:
        return math.nan if document == 2 else 1.0


def test_a_value_that_is_no_number_fails_the_candidate_and_is_not_kept(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "scores.sqlite")
    with pytest.raises(EvaluationFailed, match="document 2 of fake"):
        CachedEvaluator(NotANumber([fake_task()]), cache).score(fake_candidate(), "search")
    assert cache.load("identity", fake_task()) == {}


def test_a_cache_that_knows_the_smaller_limit_leaves_the_rest_to_be_run(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "scores.sqlite")
    CachedEvaluator(CountingEvaluator([fake_task(search=range(0, 100, 2))]), cache).score(fake_candidate(), "search")
    evaluator = CountingEvaluator([fake_task(search=range(200))])
    CachedEvaluator(evaluator, cache).score(fake_candidate(), "search")
    assert [len(documents["fake"]) for _, documents in evaluator.calls] == [150]


def test_missing_documents_are_sent_and_what_comes_back_is_accepted(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "scores.sqlite")
    tasks = [fake_task("one"), fake_task("two", "other digest", (8, 9))]
    scorer = CachedEvaluator(CountingEvaluator(tasks), cache)
    assert scorer.missing("identity", "search") == ({"one": {}, "two": {}}, {"one": [0, 1, 2, 3], "two": [8, 9]})
    scorer.accept("identity", {"one": {1: 0.5, 3: 0.25}, "two": {8: 1.0, 9: 0.0}}, "2-1")
    assert [entry.model for entry in cache.entries()] == ["2-1", "2-1"]
    known, missing = scorer.missing("identity", "search")
    assert known == {"one": {1: 0.5, 3: 0.25}, "two": {8: 1.0, 9: 0.0}}
    assert missing == {"one": [0, 2]}
    assert scorer.missing("identity", {"one": [3, 2]}) == ({"one": {3: 0.25}}, {"one": [2]})
    assert scorer.missing("another", {"two": [8]}) == ({"two": {}}, {"two": [8]})
    scorer.accept("identity", {"one": {0: 1.0, 2: 1.0}})
    score = scorer.assemble(scorer.missing("identity", "search")[0], "search")
    assert score.tasks[0].values == (1.0, 0.5, 1.0, 0.25)
    assert [task.digest for task in score.tasks] == ["digest", "other digest"]
    assert score == scorer.score(fake_candidate(), "search")
    assert scorer.evaluator.calls == []  # type: ignore[attr-defined]


def test_some_documents_make_a_partial_score() -> None:
    scorer = CachedEvaluator(CountingEvaluator([fake_task()]))
    score = scorer.assemble({"fake": {0: 1.0, 2: 0.0, 3: 1.0}}, {"fake": [0, 2]}, partial=Estimate(0.4, 0.1))
    assert score.tasks[0].documents == (0, 2)
    assert not score.complete
    assert score.value == 0.4


def test_accepting_names_who_has_no_number(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "scores.sqlite")
    scorer = CachedEvaluator(CountingEvaluator([fake_task("one"), fake_task("two", "other")]), cache)
    with pytest.raises(EvaluationFailed, match="3-4 gives inf on document 2 of two"):
        scorer.accept("identity", {"one": {0: 1.0}, "two": {2: math.inf}}, "3-4")
    with pytest.raises(EvaluationFailed, match="The model abcdefabcdef gives"):
        scorer.accept("abcdefabcdef0123", {"two": {2: math.nan}})
    assert cache.entries() == []


def test_progress_is_told_and_each_block_is_kept(tmp_path: Path) -> None:
    tasks = [fake_task("one", search=range(300)), fake_task("two", "other digest", range(10))]
    evaluator, cache, told = CountingEvaluator(tasks), ScoreCache(tmp_path / "scores.sqlite"), []

    def progress(done: int, total: int) -> None:
        told.append((done, total))
        if done > 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        CachedEvaluator(evaluator, cache).score(fake_candidate(), "search", progress)
    assert told == [(32, 310), (96, 310), (224, 310)]
    score = CachedEvaluator(evaluator, cache).score(
        fake_candidate(), "search", lambda done, total: told.append((done, total))
    )
    assert told[3:] == [(32, 86), (76, 86), (86, 86)]
    asked = [document for _, documents in evaluator.calls for document in documents.get("one", ())]
    assert asked == list(range(300))  # none twice
    assert score == CachedEvaluator(CountingEvaluator(tasks)).score(fake_candidate(), "search")
