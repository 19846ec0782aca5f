"""A search over models whose files have other names than their parameters, from founders to the written child."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from search.config import parse_config
from service.pages.run_folder import run_evolution
from tests.kinship.checkpoints.test_unified import KINDS
from tests.search.running.test_founders import tokenizer


def family(kind: str, folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """A base and two fine-tunes, saved by transformers; their parameters as it loads them."""
    torch.manual_seed(0)
    start = KINDS[kind]().float()
    found = {}
    for seed, name in enumerate(("base", "a", "b")):
        model = KINDS[kind]().float()
        model.load_state_dict(start.state_dict())
        torch.manual_seed(seed)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.002 * bool(seed) * torch.randn_like(weight))
        model.save_pretrained(folder / name)
        tokenizer().save_pretrained(folder / name)
        found[name] = type(model).from_pretrained(folder / name).state_dict()
    return found


@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe", "gpt_neox"])
@pytest.mark.parametrize("method", ["linear", "slerp"])
def test_a_child_is_what_transformers_loads_of_its_folder(kind: str, method: str, tmp_path: Path) -> None:
    parents = family(kind, tmp_path)
    (tmp_path / "text.txt").write_text("abc = cab\nhad = bad\nfed = fab\nace = bag\n" * 3)
    settings: dict[str, Any] = {
        "linear": {"method": "linear", "parameters": {"weight": 0.5}},
        "slerp": {"method": "slerp", "parameters": {"t": 0.5}},
    }
    config = parse_config(
        {
            "base": "base",
            "founders": ["a", "b"],
            "evaluate": {"perplexity": [{"file": "text.txt", "documents": "lines"}]},
            "merge": settings[method],
            "strategy": {"name": "pairs"},
            "stop": {"generations": 1},
        }
    )
    view = run_evolution(config, tmp_path / "run", root=tmp_path, cache=None, observer=lambda name, facts: None)
    assert all(person["error"] is None for person in view.export["individuals"])
    folder = tmp_path / "run/best-offspring"
    child, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    for name, tensor in child.state_dict().items():
        if method == "slerp" and tensor.dim() == 1:
            continue  # biases began at zero, and are far from each other on their sphere
        mean = (parents["a"][name] + parents["b"][name]) / 2
        torch.testing.assert_close(tensor, mean, rtol=0, atol=1e-6 if method == "linear" else 1e-3)
