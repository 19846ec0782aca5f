"""Adapters of every kind that peft makes, and the live models that peft makes of them."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

WORDS = torch.arange(5, 25).reshape(1, -1)

_SHAPE = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def write_base(folder: Path, kind: str) -> Path:
    """A tiny model: ``tied`` or ``untied`` (Llama), ``biased`` (Qwen2), ``gemma``, both tied, or ``gpt2``, tied too."""
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "gpt2":
            small = {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
            model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**small))
        else:
            name = {"gemma": "Gemma2", "biased": "Qwen2"}.get(kind, "Llama")
            config = getattr(transformers, f"{name}Config")(**_SHAPE, tie_word_embeddings=kind != "untied")
            model = getattr(transformers, f"{name}ForCausalLM")(config)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.1 * torch.randn_like(weight))
    model.save_pretrained(folder)
    return folder


def train(base: Path, folder: Path, options: dict[str, Any], seed: int = 1, size: float = 0.1) -> Path:
    """An adapter on ``base`` with the ``options`` of its LoraConfig, whose trained weights moved by about ``size``."""
    from peft import LoraConfig, get_peft_model

    saving = {key: options[key] for key in ("save_embedding_layers",) if key in options}
    settings = {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj"]} | options
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        config = LoraConfig(**{key: value for key, value in settings.items() if key not in saving})
        model = get_peft_model(_load(base), config)
        with torch.no_grad():
            for weight in model.parameters():
                if weight.requires_grad:
                    weight.add_(size * torch.randn_like(weight))
        model.save_pretrained(folder, **saving)
    return folder


def live(base: Path, adapter: Path) -> Any:
    """What peft makes of ``base`` and ``adapter``."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PeftModel.from_pretrained(_load(base), adapter)


def logits(model: Callable[..., Any]) -> torch.Tensor:
    """Of a fixed sequence of tokens."""
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=WORDS).logits
    return found


def _load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
