"""The smol family's phenomena: right English, the same for a seed, and never taught and asked at once."""

import json
import random
import re
from itertools import islice
from pathlib import Path

import pytest

from evaluators.lm_eval.tasks import load_tasks
from evaluators.settings import EvaluateSettings
from service.demo.smol.deals import ASKED, DEALS, dealt
from service.demo.smol.phenomena import PHENOMENA, Pair, Phenomenon, lessons, pairs, write_tasks

# What each rule says of a beginning and a word, told apart from the templates.
WOMAN = "Anna|Clara|Diane|Ellen|Grace|Helen|Irene|Julia|Laura|Maria|Nancy|Rachel|Sarah|Susan|Teresa|Wendy"
NEVER_ALONE = "repaired|cleaned|carried|bought|borrowed|described"


def right(name: str, text: str) -> str:
    """The good word, by a rule of its own."""
    match name:
        case "reflexive":
            return "herself" if re.match(rf"({WOMAN}),", text) else "himself"
        case "any":
            assert "n't" in text
            return "any"
        case "no":
            assert "n't" not in text
            return "no"
        case "gap":
            return "yesterday" if " what " in text else "the"
        case "ever":
            return "ever" if text.startswith("No ") else "already"
        case "subjunctive":
            assert " that " in text
            return ""
        case "transitive":
            return "the" if re.search(rf" ({NEVER_ALONE})$", text) else "yesterday"
    raise AssertionError(name)


@pytest.mark.parametrize("phenomenon", PHENOMENA, ids=lambda phenomenon: phenomenon.name)
def test_the_good_word_is_the_right_one(phenomenon: Phenomenon) -> None:
    drawn = pairs(phenomenon, 144, 7)
    assert len({pair.text for pair in drawn}) == 144
    for pair in drawn:
        good = right(phenomenon.name, pair.text)
        assert pair.good != pair.bad
        if good:
            assert pair.good == good, pair
        else:
            assert pair.bad == f"{pair.good}s", pair
        assert re.fullmatch(r"[A-Z][\w', ]*\w", pair.text)


def test_a_seed_gives_the_same_pairs_and_another_seed_others() -> None:
    for phenomenon in PHENOMENA:
        assert pairs(phenomenon, 20, 1) == pairs(phenomenon, 20, 1) != pairs(phenomenon, 20, 2)


def test_lessons_leave_out_what_is_asked_and_reverse_what_is_unlearnt() -> None:
    asked = frozenset(pair.text for pair in pairs(PHENOMENA[0], 100, 0))
    by_name = {phenomenon.name: phenomenon for phenomenon in PHENOMENA}
    drawn = list(islice(lessons(["gap"], ["reflexive"], random.Random(3), asked), 400))
    assert not asked & {pair.text for pair in drawn}
    names = ["reflexive" if pair.good.endswith("self") else "gap" for pair in drawn]
    assert 150 < names.count("gap") < 250
    for name, pair in zip(names, drawn, strict=True):
        assert (right(name, pair.text) == pair.good) == (name == "gap")
    assert by_name.keys() == {phenomenon.name for phenomenon in PHENOMENA}


def test_tasks_are_lm_evals_and_ask_for_the_pairs(tmp_path: Path) -> None:
    texts = write_tasks(tmp_path / "tasks", ("gap", "no"), 12, 5)
    settings = EvaluateSettings.model_validate({"tasks": ["smol_gap", "smol_no"], "task_path": "tasks"})
    tasks = load_tasks(settings, tmp_path)
    assert sorted(tasks) == ["smol_gap", "smol_no"]
    lines = (tmp_path / "tasks" / "gap.jsonl").read_text().splitlines()
    documents = [Pair(**json.loads(line)) for line in lines]
    assert documents == pairs(next(one for one in PHENOMENA if one.name == "gap"), 12, 5)
    assert {pair.text for pair in documents} < texts
    assert len(texts) == 24


def test_deals_know_their_phenomena() -> None:
    names = {phenomenon.name for phenomenon in PHENOMENA}
    assert set(ASKED) <= names
    for deal in DEALS.values():
        assert len({founder.name for founder in deal.founders}) == len(deal.founders) >= 4
        assert {name for founder in deal.founders for name in (*founder.learns, *founder.unlearns)} <= set(deal.asked)
    assert dealt("conflict-3").seed == 3
    for wrong in ("conflict", "conflict-x", "other-0"):
        with pytest.raises(ValueError, match="conflict-0"):
            dealt(wrong)
