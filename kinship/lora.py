"""LoRA adapters, read from their files: W' = W + s * B A, without importing peft.

Hu et al., arXiv 2106.09685; rank-stabilised scaling, arXiv 2312.03732.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kinship.errors import MalformedCheckpoint, MismatchedModels, UnsupportedCheckpoint
from kinship.safetensors_header import read_header

CONFIG_NAME, WEIGHTS_NAME = "adapter_config.json", "adapter_model.safetensors"

_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<factor>[AB])(\.weight)?")
_PREFIX = "base_model.model."


@dataclass(frozen=True)
class LowRank:
    """A change of one matrix: ``scale * left @ right`` with left (out, r) and right (r, in), fp32."""

    left: torch.Tensor
    right: torch.Tensor
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the matrix changed."""
        return self.left.shape[0], self.right.shape[1]

    def dense(self) -> torch.Tensor:
        """The change as a matrix (out, in), fp32."""
        return self.scale * (self.left @ self.right)


@dataclass(frozen=True)
class Adapter:
    """An adapter by the base model's tensor names: low-rank changes, and tensors it replaces whole."""

    low_rank: Mapping[str, LowRank]
    replaced: Mapping[str, torch.Tensor]


def is_adapter(folder: Path) -> bool:
    """Whether ``folder`` holds an adapter."""
    return (folder / CONFIG_NAME).is_file()


def read_adapter(folder: Path, base: Mapping[str, tuple[int, ...]]) -> Adapter:
    """Read the adapter in ``folder``, made for a model whose tensors have the shapes ``base``.

    Rank and alpha patterns, rsLoRA, embeddings and modules_to_save are honoured. Raises `UnsupportedCheckpoint` for
    what is not a plain LoRA (DoRA, other methods), `MismatchedModels` where it does not fit the base.
    """
    config = _read_config(folder)
    factors: dict[str, dict[str, torch.Tensor]] = {}
    replaced: dict[str, torch.Tensor] = {}
    for key, tensor in _read_tensors(folder / WEIGHTS_NAME).items():
        name = key.removeprefix(_PREFIX)
        match = _FACTOR.fullmatch(name)
        if match is None:
            replaced[_in_base(name.replace(".modules_to_save", ""), base, folder)] = tensor
        else:
            # Embedding factors are stored transposed: the change is (B A)^T.
            side = match["factor"] if not match["embedding"] else {"A": "B", "B": "A"}[match["factor"]]
            factor = tensor if not match["embedding"] else tensor.T
            factors.setdefault(match["module"], {})[side] = factor
    low_rank = {}
    for module, pair in factors.items():
        name = _in_base(f"{module}.weight", base, folder)
        if pair.keys() != {"A", "B"}:
            raise MalformedCheckpoint(f"{folder} holds only factor {next(iter(pair))} for {module}.")
        left, right = pair["B"], pair["A"]
        if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[0]:
            raise MalformedCheckpoint(
                f"{folder}: the factors of {module} have shapes {list(left.shape)} and {list(right.shape)}, "
                "which cannot be multiplied."
            )
        if config.get("fan_in_fan_out"):
            left, right = right.T, left.T
        change = LowRank(left, right, _scale(config, module, left.shape[1]))
        low_rank[name] = _fitting(name, change, base, folder)
    for name, tensor in replaced.items():
        if tuple(tensor.shape) != base[name]:
            raise MismatchedModels(
                f"{folder} replaces {name!r} by shape {list(tensor.shape)}; the base has {list(base[name])}."
            )
    return Adapter(low_rank, replaced)


def _fitting(name: str, change: LowRank, base: Mapping[str, tuple[int, ...]], folder: Path) -> LowRank:
    if change.shape != base[name]:
        raise MismatchedModels(
            f"{folder} changes {name!r} of shape {list(change.shape)}; in the base it has {list(base[name])}.",
            hint="Is this adapter for another base model?",
        )
    return change


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    """alpha / r, or alpha / sqrt(r) with rsLoRA; both by module where there are patterns."""
    alpha = float(_by_pattern(config.get("alpha_pattern"), module, config.get("lora_alpha", 8)))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _by_pattern(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """peft's rule: a pattern matches the end of a module's name, at a dot."""
    for pattern, value in (patterns or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            return value
    return default


def _in_base(name: str, base: Mapping[str, tuple[int, ...]], folder: Path) -> str:
    if name not in base:
        raise MismatchedModels(
            f"{folder} changes {name!r}, which the base model has not.", hint="Is this adapter for another base model?"
        )
    return name


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise MalformedCheckpoint(f"{folder / CONFIG_NAME} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise MalformedCheckpoint(f"{folder / CONFIG_NAME} holds no JSON object.")
    kind = config.get("peft_type", "LORA")
    if kind != "LORA" or config.get("use_dora"):
        raise UnsupportedCheckpoint(
            f"{folder} is a {'DoRA' if config.get('use_dora') else kind} adapter; plain LoRA is supported.",
            hint="Merge it into its base with peft, and use the merged model.",
        )
    if config.get("bias", "none") != "none":
        raise UnsupportedCheckpoint(f"{folder} trains biases, which is not supported.", hint="Merge it into its base.")
    return config


def _read_tensors(file: Path) -> dict[str, torch.Tensor]:
    if not file.is_file():
        raise UnsupportedCheckpoint(
            f"{file.parent} holds no {WEIGHTS_NAME}.", hint="Save the adapter as safetensors (the default of peft)."
        )
    tensors = {}
    with open(file, "rb") as stream:
        for name, entry in read_header(file).items():
            stream.seek(entry.offset)
            data = bytearray(stream.read(entry.nbytes))
            flat = torch.frombuffer(data, dtype=entry.dtype) if data else torch.empty(0, dtype=entry.dtype)
            tensors[name] = flat.reshape(entry.shape).float()
    return tensors
