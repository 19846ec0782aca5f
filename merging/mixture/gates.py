"""The gates of a mixture of experts, made when they are first read: of prompts, or at random."""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.dtypes import FLOAT32
from kinship.checkpoints.header import TensorEntry
from kinship.errors import InvalidConfig, UnsupportedCheckpoint, foreign
from merging.data_driven.models import load_causal_lm
from merging.mixture.recipe import FROM_PROMPTS, Expert, GateMode

Make = Callable[[], torch.Tensor]


class MadeTensors(Checkpoint):
    """A checkpoint of fp32 tensors that are made when the first is read, all at once, and kept in memory.

    shapes: of the tensors by name; ``make`` gives their numbers (*shape). random: whether a seed decides them.
    """

    def __init__(
        self,
        id: str,
        shapes: Mapping[str, tuple[int, ...]],
        make: Callable[[], Mapping[str, torch.Tensor]],
        random: bool,
    ) -> None:
        entries = {
            name: TensorEntry(name, FLOAT32, shape, Path(), 0, 4 * math.prod(shape)) for name, shape in shapes.items()
        }
        super().__init__(id, Path(), entries, {})
        self.random = random
        self._make = make
        self._made: dict[str, NDArray[np.float32]] | None = None
        self._once = threading.Lock()

    def read_into(self, name: str, start: int, view: memoryview) -> None:
        """See `Checkpoint.read_into`."""
        with self._once:
            if self._made is None:
                made = self._make()
                self._made = {key: made[key].float().contiguous().numpy().reshape(-1) for key in self.tensors}
        stored = self._made[name].view(np.uint8)
        view[:] = stored[4 * start :][: len(view)].data


def gates(mode: GateMode, base: Checkpoint, experts: Sequence[Expert], layers: int, seed: int) -> torch.Tensor:
    """Gates (layers, experts, hidden), fp32, as mergekit-moe makes them.

    hidden, hidden_last: the hidden state before each layer of ``base`` at the last token, the mean of the positive
    prompts less that of the negative ones, of length 1. hidden_avg: at all tokens. cheap_embed: the sum of the tokens'
    embeddings, alike in all layers. random: normal; uniform_random: as a linear layer begins. One prompt goes through
    the base at a time, in fp32. Raises `UnsupportedCheckpoint` and `InvalidConfig`.
    """
    if mode not in FROM_PROMPTS:
        shape = (layers, len(experts), int(base.config["hidden_size"]))
        generator = torch.Generator().manual_seed(seed)
        if mode == "random":
            return torch.randn(shape, generator=generator)
        return (2 * torch.rand(shape, generator=generator) - 1) / math.sqrt(shape[2])
    tokenizer = _tokenizer(base)
    state = _embedded(base, layers) if mode == "cheap_embed" else _hidden(base, average=mode == "hidden_avg")
    found = []
    for expert in experts:
        total = _mean(state, tokenizer, expert.positive_prompts, mode)
        if expert.negative_prompts:
            total = total - _mean(state, tokenizer, expert.negative_prompts, mode)
        found.append(total / total.norm(dim=-1, keepdim=True).clamp(min=1e-8))
    return torch.stack(found, dim=1)


def _mean(
    state: Callable[[torch.Tensor], torch.Tensor], tokenizer: Any, prompts: Sequence[str], mode: str
) -> torch.Tensor:
    rows = []
    for prompt in prompts:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        if not ids.numel():
            raise InvalidConfig(f"The prompt {prompt[:100]!r} has no tokens.", hint="Give a text that says something.")
        rows.append(state(ids))
    return torch.stack(rows).sum(0) if mode == "cheap_embed" else torch.stack(rows).mean(0)


def _hidden(base: Checkpoint, *, average: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    """Gives the states (layers, hidden) before each layer of ``base``, for token ids (1, T)."""
    model: Any = load_causal_lm(base)

    def state(ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            states = torch.stack(model(input_ids=ids, output_hidden_states=True).hidden_states[:-1])[:, 0]
        return states.mean(dim=1) if average else states[:, -1]

    return state


def _embedded(base: Checkpoint, layers: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Gives the sum of the embeddings of token ids (1, T), (layers, hidden)."""
    name = next(name for name in base.tensors if name.endswith("embed_tokens.weight"))
    table = base.tensor(name).float()
    return lambda ids: table[ids[0]].sum(dim=0).expand(layers, -1)


def _tokenizer(base: Checkpoint) -> Any:
    from transformers import AutoTokenizer

    refused = f"transformers makes no tokenizer of {base.path}"
    with foreign(UnsupportedCheckpoint, refused, hint="Prompts need the base's tokenizer; or say gate_mode: random."):
        return AutoTokenizer.from_pretrained(base.path, local_files_only=True, trust_remote_code=False)
