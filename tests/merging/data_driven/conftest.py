"""Networks small enough that what is measured of them can be written down."""

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

os.environ.setdefault("HF_HUB_OFFLINE", "1")

MakeLlama = Callable[..., Path]


class Network(nn.Module):
    """Classifier of inputs ``x`` (B, in), with ``sizes`` of its layers and a nonlinearity in between."""

    def __init__(self, sizes: tuple[int, ...], seed: int = 0, bias: bool = True) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.layers = nn.ModuleList(
            nn.Linear(before, after, bias=bias, dtype=torch.float64) for before, after in pairwise(sizes)
        )
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.7 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers[:-1]:
            x = layer(x).tanh()
        logits: torch.Tensor = self.layers[-1](x)
        return logits


class Bigrams(nn.Module):
    """A causal language model whose logits after a token are that token's row of a table (V, V)."""

    def __init__(self, tokens: int, seed: int = 0) -> None:
        super().__init__()
        self.table = nn.Embedding(tokens, tokens, dtype=torch.float64)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.table.weight.copy_(torch.randn(tokens, tokens, generator=generator, dtype=torch.float64))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        logits: torch.Tensor = self.table(input_ids)
        return logits


@pytest.fixture(scope="session")
def network() -> Callable[..., Network]:
    return Network


@pytest.fixture(scope="session")
def bigrams() -> Callable[..., Bigrams]:
    return Bigrams


@pytest.fixture(scope="session")
def inputs() -> Callable[..., torch.Tensor]:
    """Random float64 inputs."""

    def make(*shape: int, seed: int = 0) -> torch.Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(1000 + seed), dtype=torch.float64)

    return make


@pytest.fixture
def make_llama(tmp_path: Path) -> MakeLlama:
    """Write a Llama of two layers and 32 tokens as a Hugging Face folder; weights by ``seed``."""

    def make(name: str, seed: int = 0, tied: bool = True) -> Path:
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            vocab_size=32,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=32,
            tie_word_embeddings=tied,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = LlamaForCausalLM(config)
            for parameter in model.parameters():
                parameter.data.add_(0.1 * torch.randn(parameter.shape))
        model.save_pretrained(tmp_path / name)
        return tmp_path / name

    return make
