"""Kinship of adapters of every kind against the live models' weights in float64."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kinship import kinship_matrix
from kinship.checkpoints.opening import open_checkpoint
from tests.kinship.live_adapters import live, train, write_base

KINDS: dict[str, dict[str, Any]] = {
    "plain": {"target_modules": ["q_proj", "up_proj"]},
    "dora": {"target_modules": ["q_proj", "up_proj"], "use_dora": True},
    "pissa": {"target_modules": ["q_proj"], "init_lora_weights": "pissa"},
    "olora": {"target_modules": ["up_proj"], "init_lora_weights": "olora"},
    "tokens": {"trainable_token_indices": [30, 7]},
    "kept tied": {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
}
UNTIED: dict[str, dict[str, Any]] = {
    "embedding": {"modules_to_save": ["embed_tokens"]},
    "head": {"target_modules": ["lm_head", "q_proj"]},
}


def task_vector(base: Path, adapter: Path, *, with_head: bool) -> np.ndarray:
    """What the live model makes of all parameters, less the base's, float64."""
    from transformers import AutoModelForCausalLM

    def weights(model: Any) -> torch.Tensor:
        state = model.state_dict()
        names = [name for name in sorted(state) if with_head or "lm_head" not in name]
        return torch.cat([state[name].double().flatten() for name in names])

    before = weights(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32))
    found: np.ndarray = (weights(unwrapped(live(base, adapter))) - before).numpy()
    return found


def unwrapped(model: Any) -> Any:
    """The merged model; embedding and head apart first, as peft's own merge would change both."""
    inner = model.get_base_model()
    for name in ("model.embed_tokens", "lm_head"):
        module = inner.get_submodule(name)
        layer = getattr(module, "base_layer", None)
        if layer is not None:
            layer.weight = torch.nn.Parameter(layer.weight.detach().clone())
    return model.merge_and_unload()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("untied", [False, True])
def test_kinship_is_that_of_the_live_weights(untied: bool, metric: str, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", "tied")
    kinds = KINDS | UNTIED if untied else KINDS
    adapters = [
        train(base, tmp_path / name, options, seed=seed) for seed, (name, options) in enumerate(kinds.items(), 1)
    ]
    found = kinship_matrix([f"{base}+{adapter}" for adapter in adapters], base, metric)
    vectors = np.stack([task_vector(base, adapter, with_head=untied) for adapter in adapters])
    if metric == "euclidean":
        wanted = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    else:
        lengths = np.linalg.norm(vectors, axis=1)
        wanted = vectors @ vectors.T / np.outer(lengths, lengths)
    np.testing.assert_allclose(found.values, wanted, rtol=0, atol=1e-5)
    assert found.left_out == {}
    with open_checkpoint(base) as opened:
        assert found.tensors == len(opened.tensors) + untied


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_what_an_adapter_started_from_is_no_task_vector(start: str, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", "tied")
    fresh = train(base, tmp_path / "fresh", {"init_lora_weights": start}, size=0.0)
    plain = train(base, tmp_path / "plain", {})
    found = kinship_matrix([f"{base}+{fresh}", f"{base}+{plain}"], base)
    assert found.without_direction() == (f"{base}+{fresh}",)
    with open_checkpoint(f"{base}+{fresh}") as checkpoint, open_checkpoint(base) as before:
        for name in before.tensors:
            assert torch.equal(checkpoint.tensor(name), before.tensor(name))
