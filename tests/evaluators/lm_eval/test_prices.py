"""What a document costs, counted by hand: of the tiny model every character is a token."""

from statistics import fmean

import pytest

from evaluators.lm_eval.prices import SAMPLE, some
from evaluators.perplexity import Perplexity
from kinship.checkpoints.opening import open_checkpoint
from tests.evaluators.conftest import GENERATED, Tiny, make_harness, make_settings


@pytest.mark.parametrize("share", [False, True])
def test_a_document_costs_all_that_the_model_runs_for_it(tiny: Tiny, share: bool) -> None:
    tasks = {task.name: task for task in make_harness(tiny, share_prefixes=share).tasks}
    asked = {name: some(task.documents["search"]) for name, task in tasks.items()}
    prompts = {name: [len(tiny.documents[name][index]["prompt"]) for index in ids] for name, ids in asked.items()}
    expected = {
        "tiny_likelihood": [length + 1 for length in prompts["tiny_likelihood"]],
        "tiny_choice": [(1 if share else 3) * length + 3 * 2 for length in prompts["tiny_choice"]],
        "tiny_generate": [length + GENERATED for length in prompts["tiny_generate"]],
    }
    for name, task in tasks.items():
        assert task.price is not None
        assert task.price() == task.price() == fmean(expected[name])


def test_a_text_costs_its_tokens(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("text") / "lines.txt"
    file.write_text("ab\nabcd\n" * 30, encoding="utf-8")
    settings = make_settings(perplexity=[{"file": str(file), "documents": "lines"}])
    (task,) = Perplexity(settings, open_checkpoint(tiny.model)).tasks
    assert task.price is not None
    assert task.price() == pytest.approx(3.0, abs=1.0)


def test_a_sample_is_spread_over_all() -> None:
    found = some(range(1000))
    assert len(set(found)) == SAMPLE
    assert found[0] == 0
    assert found[-1] > 900
