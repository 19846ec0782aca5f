"""A base and two fine-tunes of a row on disk, as `save_pretrained` writes them, and as transformers loads them."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

from merging.merge import write_merge
from merging.recipe.schema import parse_recipe
from tests.architectures.rows import TOKENS, Row, Tensors
from tests.search.running.test_founders import tokenizer

MODELS = ("base", "a", "b")
TEXT = "".join(f"{word} = {word[::-1]}\n" for word in ("abc", "had", "fed", "ace", "bead", "cafe", "deaf", "gab"))


class Family:
    """``folder`` with the models of ``row``: base, fine-tunes ``a`` and ``b``, and, once asked for, their merge."""

    def __init__(self, row: Row, folder: Path) -> None:
        self.row, self.folder = row, folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "text.txt").write_text(TEXT)
        torch.manual_seed(0)
        start = row.make().to(row.dtype)
        self.has_tokens = bool(_token_tables(start))
        _shift(start, 0.05)
        weights = {name: tensor.clone() for name, tensor in start.state_dict().items()}
        for seed, name in enumerate(MODELS):
            start.load_state_dict(weights)
            if seed:
                torch.manual_seed(seed)
                _shift(start, 0.02, torch.randperm(TOKENS["vocab_size"])[::2])
            start.save_pretrained(self.path(name), max_shard_size="10KB" if row.shards else "1GB")
            self._write_frame(self.path(name))
        self.kind = type(start)
        self._rewrite_base()

    def path(self, name: str) -> Path:
        """The folder of a model."""
        return self.folder / name

    @cached_property
    def loaded(self) -> dict[str, Tensors]:
        """Of each model the tensors that transformers loads, one of those that are tied."""
        return {name: state(self.kind.from_pretrained(self.path(name), dtype="auto")) for name in MODELS}

    @cached_property
    def merged(self) -> Path:
        """A merge half of ``a`` and half of ``b``, which reads the base as well."""
        recipe = {
            "merge_method": "task_arithmetic",
            "base_model": str(self.path("base")),
            "models": [{"model": str(self.path(name)), "parameters": {"weight": 0.5}} for name in "ab"],
        }
        write_merge(parse_recipe(recipe), self.path("merged"))
        return self.path("merged")

    def require_mean(self, folder: Path) -> None:
        """That transformers loads ``folder`` without a complaint, and finds the mean of what it loads of a and b."""
        model, report = self.kind.from_pretrained(folder, dtype="auto", output_loading_info=True)
        assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
        found = state(model)
        assert found.keys() == self.loaded["a"].keys()
        for name, tensor in found.items():
            a, b = self.loaded["a"][name], self.loaded["b"][name]
            if not tensor.is_floating_point():
                assert torch.equal(tensor, a), name
                continue
            assert tensor.dtype == a.dtype, name
            mean = ((a.double() + b.double()) / 2).to(tensor.dtype)
            step = torch.finfo(tensor.dtype).eps * mean.abs().max()
            assert (tensor - mean).abs().max() <= step, name

    def _write_frame(self, folder: Path) -> None:
        if self.row.tokenizer == "bytes":
            transformers.ByT5Tokenizer(extra_ids=100).save_pretrained(folder)
        else:
            tokenizer().save_pretrained(folder)

    def _rewrite_base(self) -> None:
        for file in self.path("base").glob("*.safetensors"):
            stored = load_file(file)
            changed = self.row.base_file(stored)
            if changed is not stored:
                save_file(changed, file, metadata={"format": "pt"})


def state(model: Any) -> Tensors:
    """The tensors that are stored of ``model``, one of those that share their memory."""
    found: Tensors = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            found[name] = tensor
    return found


def _shift(model: Any, size: float, unused: torch.Tensor | None = None) -> None:
    """Add noise to everything that training may change: buffers of numbers among them.

    ``unused``: numbers of tokens that the data has not, whose embeddings stay as they are.
    """
    embeddings = _token_tables(model)
    for tensor in state(model).values():
        if tensor.is_floating_point():
            assert tensor.isfinite().all()
            noise = size * torch.randn_like(tensor)
            if unused is not None and tensor.data_ptr() in embeddings:
                noise[unused] = 0
            tensor.add_(noise)


def _token_tables(model: Any) -> set[int]:
    """Where the weights of embeddings of tokens lie."""
    return {
        module.weight.data_ptr()
        for module in model.modules()
        if isinstance(module, torch.nn.Embedding) and module.num_embeddings == TOKENS["vocab_size"]
    }
