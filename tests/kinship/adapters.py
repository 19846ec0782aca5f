"""LoRA adapters made by hand, in peft's file format."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]

Q0, Q1 = "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"
UP0, UP1 = "model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj"


def factors(folder: Path, modules: dict[str, int], seed: int = 0, size: float = 0.1) -> Tensors:
    """Random factors of the ranks ``modules`` for modules of the base in ``folder``, by peft's keys."""
    generator = torch.Generator().manual_seed(seed)
    base, found = load_file(folder / "model.safetensors"), {}
    for module, rank in modules.items():
        out, width = base[f"{module}.weight"].shape
        found[f"base_model.model.{module}.lora_A.weight"] = torch.randn(rank, width, generator=generator) * size
        found[f"base_model.model.{module}.lora_B.weight"] = torch.randn(out, rank, generator=generator) * size
    return found


def write(folder: Path, tensors: Tensors, **config: Any) -> Path:
    """Write an adapter folder; ``r`` is left out unless given, so that any rank will do."""
    folder.mkdir()
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "lora_alpha": 8} | config))
    return folder
