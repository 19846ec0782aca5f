"""Plans of local models; those of models on the Hub are in test_outline."""

import json
from pathlib import Path

import pytest
import torch

from kinship.errors import MismatchedModels
from kinship.measures.comparison import ComparisonOptions
from kinship.measures.gram import peak_memory
from kinship.measures.preflight import preflight
from tests.conftest import SHAPES, MakeModel


@pytest.fixture
def folders(make_model: MakeModel) -> list[Path]:
    base = make_model("base")
    return [base, make_model("half", 1, base, torch.bfloat16), make_model("full", 2, base)]


def test_plan_counts_what_the_headers_say(folders: list[Path]) -> None:
    base, *models = folders
    plan = preflight(models, base, options=ComparisonOptions(exclude="embed"))
    parameters = 2 * 8 * 8 + 2 * 80 * 70 + 8
    assert (plan.models, plan.tensors, plan.parameters) == (2, len(SHAPES) - 1, parameters)
    assert plan.bytes_to_read == (4 + 2 + 4) * parameters
    assert plan.peak_memory == peak_memory(3)
    assert plan.left_out == {"model.embed_tokens.weight": "excluded by 'embed'"}
    assert plan.seconds > 0
    assert (plan.bytes_to_download, plan.weights_here) == (0, True)


def test_json_form_is_as_documented(folders: list[Path]) -> None:
    base, *models = folders
    content = preflight(models, base).to_dict()
    documented = (Path(__file__).parents[3] / "docs" / "formats.md").read_text()
    _, section = documented.split("## `kinship.matrix-plan/1`")
    assert content.pop("schema") == "kinship.matrix-plan/1"
    assert all(f"`{key}`" in section.split("##")[0] for key in content)
    assert json.loads(json.dumps(content)) == content


def test_what_cannot_be_compared_is_refused(folders: list[Path], make_model: MakeModel) -> None:
    other = make_model("other", shapes=SHAPES | {"model.norm.weight": (9,)})
    with pytest.raises(MismatchedModels, match=r"model\.norm\.weight"):
        preflight([other], folders[0])
