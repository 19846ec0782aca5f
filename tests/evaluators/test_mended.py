"""Scoring with what lies beside a model's weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluators.base import Candidate, Evaluator
from evaluators.make import make_evaluator
from evaluators.mended import Mended, mended_identity
from evaluators.testing.evaluator import CHECKS, Subject
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import InvalidConfig, KinshipError
from merging.beside.attached import with_head
from merging.beside.files import read_beside
from merging.merge import write_merge
from merging.recipe.schema import parse_recipe
from service.answers.score import score_models
from tests.evaluators.conftest import as_candidate, make_settings, write_llama

SEEN = ["abc=dh", "bad cab", "face=deaf", "gh ab=cd"]
LINES = [f"{one}{two}={two}{one} c" for one in "abcdef" for two in "gh"]
DOCUMENTS = {"first": range(6), "second": range(4)}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, two models, a merge of them with heads, and one with experts."""
    folder = tmp_path_factory.mktemp("beside")
    for seed, name in enumerate(("base", "one", "two")):
        write_llama(folder / name, seed)
    entries: list[dict[str, Any]] = [{"model": str(folder / name), "data": {"texts": SEEN}} for name in ("one", "two")]
    merge = {"merge_method": "linear", "models": entries, "parameters": {"weight": 0.5}}
    write_merge(parse_recipe(merge | {"surgery": {"rank": 4, "steps": 60, "rate": 0.02}}), folder / "mended")
    write_merge(parse_recipe(merge | {"surgery": {"rank": 0}}), folder / "rank0")
    smile = {"merge_method": "smile", "base_model": str(folder / "base"), "parameters": {"rank": 64}}
    write_merge(parse_recipe(smile | {"models": [{"model": str(folder / "one")}]}), folder / "routed")
    for name in ("first", "second"):
        (folder / f"{name}.txt").write_text("\n".join(LINES if name == "first" else LINES[::-1]))
    return folder


def settings(place: Path, **others: Any) -> Any:
    texts = [{"file": str(place / f"{name}.txt"), "documents": "lines"} for name in ("first", "second")]
    return make_settings(perplexity=texts, **others)


def made(place: Path, name: str = "mended", **others: Any) -> Evaluator:
    return make_evaluator(settings(place, **others), open_checkpoint(place / name), place)


def beside(place: Path, name: str) -> Candidate:
    checkpoint = open_checkpoint(place / name)
    return replace(as_candidate(checkpoint), identity=mended_identity(checkpoint), beside=checkpoint)


def fitted(place: Path, **others: Any) -> dict[str, Any]:
    return {"first": {"model": "one", "texts": SEEN, "rank": 4, "steps": 60, "rate": 0.02} | others}


def likelihood(place: Path, name: str, text: str, head: str | None) -> float:
    """Per byte, by plain transformers with the head's own arithmetic in the place of a hook of ours."""
    model = AutoModelForCausalLM.from_pretrained(place / name, dtype=torch.float32).eval()
    ids = AutoTokenizer.from_pretrained(place / name).encode(text)
    with torch.no_grad():
        hidden = model.model(torch.tensor([[1, *ids[:-1]]])).last_hidden_state[0]
        if head is not None:
            kept = read_beside(open_checkpoint(place / name)).heads[head]
            hidden = hidden - torch.relu(hidden @ kept.down.T) @ kept.up.T
        scores = model.lm_head(hidden).log_softmax(dim=-1)
    return float(sum(scores[at, token] for at, token in enumerate(ids))) / len(text.encode())


def test_a_head_takes_part_in_its_task_alone(place: Path) -> None:
    found = made(place, surgery={"first": "one"}).run(beside(place, "mended"), DOCUMENTS)
    for index, value in found["first"].items():
        assert value == pytest.approx(likelihood(place, "mended", LINES[index], "one"), rel=1e-4)
        assert abs(value - likelihood(place, "mended", LINES[index], None)) > 1e-3
    for index, value in found["second"].items():
        assert value == pytest.approx(likelihood(place, "mended", LINES[::-1][index], None), rel=1e-4)


def test_the_model_is_as_before_afterwards(place: Path) -> None:
    evaluator = made(place, surgery={"first": "one", "second": "two"})
    bare = as_candidate(open_checkpoint(place / "one"))
    with pytest.raises(InvalidConfig, match="a search's candidates have none"):
        evaluator.run(bare, DOCUMENTS)
    first = evaluator.run(beside(place, "mended"), DOCUMENTS)
    plain = made(place).run(as_candidate(open_checkpoint(place / "one")), DOCUMENTS)
    assert evaluator.run(beside(place, "one"), DOCUMENTS) == plain  # which has no heads
    assert evaluator.run(beside(place, "mended"), DOCUMENTS) == first


def test_rank_0_changes_no_result(place: Path) -> None:
    found = made(place, "rank0", surgery={"first": "one"}).run(beside(place, "rank0"), DOCUMENTS)
    assert found == made(place, "rank0").run(as_candidate(open_checkpoint(place / "rank0")), DOCUMENTS)


def test_experts_take_part_without_being_asked_for(place: Path) -> None:
    """One expert of full rank: the model that it was made of."""
    found = made(place, "routed").run(beside(place, "routed"), DOCUMENTS)
    expected = made(place, "one").run(as_candidate(open_checkpoint(place / "one")), DOCUMENTS)
    bare = made(place, "routed").run(as_candidate(open_checkpoint(place / "routed")), DOCUMENTS)
    for task, values in expected.items():
        assert found[task] == pytest.approx(values, rel=1e-3)
        assert all(abs(bare[task][index] - value) > 1e-3 for index, value in values.items())


def test_identities_are_of_weights_and_what_lies_beside(place: Path) -> None:
    names = ("one", "mended", "rank0", "routed")
    checkpoints = {name: open_checkpoint(place / name) for name in names}
    assert mended_identity(checkpoints["one"]) == checkpoints["one"].digest
    assert checkpoints["mended"].digest == checkpoints["rank0"].digest
    assert len({mended_identity(checkpoint) for checkpoint in checkpoints.values()}) == len(names)


def digests(place: Path, **others: Any) -> dict[str, str]:
    return {task.name: task.digest for task in made(place, **others).tasks}


def test_conditions_say_and_digests_cover_what_is_mended(place: Path) -> None:
    plain = digests(place)
    assert "surgery" not in made(place).conditions
    assert made(place, surgery={"first": "one"}).conditions["surgery"] == "first"
    variants = [
        {"first": "one"},
        {"first": "two"},
        fitted(place),
        *(fitted(place, **change) for change in ({"rank": 5}, {"steps": 61}, {"rate": 0.1}, {"model": "two"})),
        fitted(place, texts=SEEN[:3]),
        fitted(place, documents=2),
    ]
    found = [digests(place, surgery=variant) for variant in variants]
    assert {each["second"] for each in found} == {plain["second"]}
    assert len({each["first"] for each in [plain, *found]}) == len(variants) + 1
    assert digests(place, surgery=fitted(place)) == found[2]


def test_a_head_is_fitted_to_each_candidate_of_a_search(place: Path) -> None:
    evaluator = made(place, "base", surgery=fitted(place))
    candidates = [as_candidate(open_checkpoint(place / name)) for name in ("mended", "two")]
    first = [evaluator.run(candidate, DOCUMENTS) for candidate in candidates]
    assert [evaluator.run(candidate, DOCUMENTS) for candidate in candidates[::-1]] == first[::-1]
    plain = [made(place, "base").run(candidate, DOCUMENTS) for candidate in candidates]
    for mended, bare in zip(first, plain, strict=True):
        assert mended["second"] == bare["second"]
        assert all(abs(mended["first"][index] - value) > 1e-3 for index, value in bare["first"].items())
    block = {"first": [3], "second": []}
    assert evaluator.run(candidates[0], block)["first"] == pytest.approx({3: first[0]["first"][3]}, rel=1e-5)


def test_it_is_the_head_that_a_merge_keeps(place: Path) -> None:
    """Fitted on the same documents by the same steps from the same seed."""
    kept = made(place, surgery={"first": "one"}).run(beside(place, "mended"), DOCUMENTS)
    anew = made(place, surgery=fitted(place)).run(beside(place, "mended"), DOCUMENTS)
    assert anew["first"] == pytest.approx(kept["first"], rel=1e-4)


def test_a_founder_is_compared_with_the_merge_that_has_heads(place: Path) -> None:
    models = [str(place / name) for name in ("one", "mended", "routed")]
    answer = score_models(models, settings(place, surgery={"first": "one"}), place)
    assert [one.error for one in answer.models] == [None] * 3
    for one in answer.models[1:]:
        assert one.versus_first_by_task["search"].keys() == {"first", "second"}


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"surgery": {"frist": "one"}}, "names the task 'frist'"),
        ({"surgery": {"first": "onne"}}, "has no head 'onne'"),
        ({"surgery": {"first": {"model": "one"}}}, "neither a file nor texts"),
        ({"surgery": {"first": {"model": "nobody", "texts": SEEN}}}, "nobody"),
        ({"surgery": {"first": {"model": "one", "file": "nothing.txt"}}}, "nothing.txt"),
    ],
)
def test_what_makes_no_sense_is_one_line(place: Path, others: dict[str, Any], message: str) -> None:
    with pytest.raises(KinshipError, match=message) as refusal:
        made(place, **others).run(beside(place, "mended"), DOCUMENTS)
    assert "\n" not in str(refusal.value)


def test_engines_of_others_know_of_none_of_this(place: Path) -> None:
    from evaluators.settings import WrittenSettings

    for name, others in (("one", {"surgery": {"first": "one"}}), ("routed", {})):
        with pytest.raises(InvalidConfig, match="the settings say `written`"):
            made(place, name, written=WrittenSettings(), **others)


def test_the_hook_is_gone_where_the_inside_raises(place: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(place / "mended")
    head = read_beside(open_checkpoint(place / "mended")).heads["one"]
    with pytest.raises(ZeroDivisionError), with_head(model, head):
        raise ZeroDivisionError
    assert not model.lm_head._forward_pre_hooks


def test_what_lies_beside_is_read_once_however_many_blocks_are_run(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_heads, without = beside(place, "mended"), beside(place, "rank0")
    read: list[str] = []
    monkeypatch.setattr("merging.beside.files.read_beside", lambda model: read.append(model.id) or read_beside(model))
    evaluator = made(place, surgery={"first": "one"})
    found = [evaluator.run(candidate, {"first": [0, 1]}) for candidate in (with_heads, with_heads, without, with_heads)]
    assert read == [with_heads.beside.id, without.beside.id, with_heads.beside.id]  # type: ignore[union-attr]
    assert found[0] == found[1] == found[3] != found[2]


@pytest.mark.parametrize("check", CHECKS)
def test_it_conforms(check: Any, place: Path) -> None:
    def make(**others: Any) -> Mended:
        heads = fitted(place, **others)
        evaluator = made(place, "base", surgery=heads | {"second": heads["first"]})
        assert isinstance(evaluator, Mended)
        return evaluator

    checkpoint = open_checkpoint(place / "mended")
    candidates = [as_candidate(checkpoint), as_candidate(checkpoint, 0.5)]
    check(Subject(make=make, candidates=candidates, variants=[lambda: make(rank=2)]))
