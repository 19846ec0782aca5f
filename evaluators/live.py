"""A causal language model in memory whose weights are swapped in place."""

from pathlib import Path
from typing import Any

import torch

from kinship.checkpoint import Checkpoint
from kinship.errors import MismatchedModels, UnsupportedCheckpoint
from merging.materialise import Tensors, TensorStream

ONE_THREAD_BELOW = 5_000_000


class LiveModel:
    """Architecture and tokenizer of ``template``; weights come with `load`.

    On the CPU, models below `ONE_THREAD_BELOW` parameters run on one thread: more would wait for each other.
    Memory: one model in ``dtype`` (default fp32 on the CPU, bf16 on CUDA). No remote code is run.
    """

    def __init__(self, template: Checkpoint, device: str = "cpu", dtype: torch.dtype | None = None) -> None:
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

        folder = require_model_folder(template)
        self.device = device
        self.dtype = dtype or (torch.float32 if device == "cpu" else torch.bfloat16)
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        model = AutoModelForCausalLM.from_config(config, dtype=self.dtype)
        self.model: Any = model.to(device).eval().requires_grad_(False)
        if (folder / "generation_config.json").exists():
            self.model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if device == "cpu" and self.model.num_parameters() < ONE_THREAD_BELOW:
            torch.set_num_threads(1)
        self._places: dict[str, torch.Tensor] = dict(self.model.named_parameters(remove_duplicate=False))

    def load(self, tensors: Tensors) -> None:
        """Overwrite every parameter; raises `MismatchedModels` naming a tensor that has no place or is missing."""
        if isinstance(tensors, TensorStream) and tensors.fill is not None and self.device == "cpu":
            tensors.fill(self._places)
            filled = {id(self._places[spec.name]) for spec in tensors.specs}
        else:
            filled = {id(self._put(name, tensor)) for name, tensor in tensors}
        for name, place in self._places.items():
            if id(place) not in filled:
                raise MismatchedModels(f"The checkpoints hold no tensor {name!r} that the model needs.")

    def _put(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        place = self._places.get(name)
        if place is None:
            raise MismatchedModels(f"The model has no parameter {name!r}.", hint="Is the base of another kind?")
        if place.shape != tensor.shape:
            raise MismatchedModels(
                f"Tensor {name!r} has shape {list(tensor.shape)}, but config.json makes it {list(place.shape)}."
            )
        return place.copy_(tensor)

    def gives_nan(self) -> bool:
        """Whether the logits after one token hold NaN: a generation would hide it, a likelihood shows it."""
        with torch.inference_mode():
            return bool(self.model(torch.zeros(1, 1, dtype=torch.long, device=self.device)).logits.isnan().any())


def require_model_folder(template: Checkpoint) -> Path:
    """The folder of a checkpoint that can be run; raises `UnsupportedCheckpoint` for a bare weights file."""
    if not template.config:
        raise UnsupportedCheckpoint(
            f"{template.id} has no config.json, so it cannot be run and scored.",
            hint="Give a Hugging Face model folder with config and tokenizer.",
        )
    return template.path
