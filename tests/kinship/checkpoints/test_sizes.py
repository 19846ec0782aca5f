"""A config that claims more than its files hold is refused before a model is made of it."""

import json
from pathlib import Path

import pytest

from evaluators.live import config_of
from kinship.checkpoints.architecture import architecture_of
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import MalformedCheckpoint
from tests.conftest import MakeModel


@pytest.mark.parametrize(
    "claim",
    [
        {"num_hidden_layers": 10**9}, {"vocab_size": 10**12}, {"hidden_size": 2**40}, {"intermediate_size": 10**5000},
        {"text_config": {"num_hidden_layers": 10**7}}, {"num_attention_heads": 2**40}, {"num_local_experts": 10**10},
    ],
)  # fmt: skip
def test_claims_are_compared_with_what_is_held(claim: dict[str, object], make_model: MakeModel) -> None:
    folder = make_model("model")
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 2**30} | claim
    with open_checkpoint(folder) as model:
        object.__setattr__(model, "config", config)
        for ask in (architecture_of, config_of):
            with pytest.raises(MalformedCheckpoint, match=r"config\.json says \w+: .* but the files hold"):
                ask(model)


def test_a_config_of_the_model_is_none_of_them(make_model: MakeModel) -> None:
    folder: Path = make_model("model")
    (folder / "config.json").write_text(
        json.dumps({"model_type": "llama", "vocab_size": 128_256, "max_window_layers": 500, "num_hidden_layers": 28})
    )
    with open_checkpoint(folder) as model:
        assert architecture_of(model) is None
        assert config_of(model).vocab_size == 128_256
