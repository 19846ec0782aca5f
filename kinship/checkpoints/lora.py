"""LoRA adapters, read from their files: W' = W + s * B A, without importing peft.

Hu et al., arXiv 2106.09685; rank-stabilised scaling, arXiv 2312.03732.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from kinship.checkpoints.dtypes import widen
from kinship.checkpoints.folder_files import find_file, read_json
from kinship.checkpoints.header import TensorEntry, read_header
from kinship.errors import MalformedCheckpoint, MismatchedModels, NonFiniteWeights, UnsupportedCheckpoint

CONFIG_NAME, WEIGHTS_NAME = "adapter_config.json", "adapter_model.safetensors"

_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<factor>[AB])(\.weight)?")
# How peft marks a module that it saves whole: one of modules_to_save, or an embedding beneath its adapter.
_WHOLE = re.compile(r"\.(modules_to_save(\.default)?|base_layer)(?=\.)")

# Settings of peft that make W' something else than W + s * B A, or W something else than the base's.
_UNSUPPORTED = (
    "use_dora",
    "lora_bias",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
)
_CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True)
class LowRank:
    """A change of one matrix: ``scale * left @ right`` with left (out, r) and right (r, in), fp32."""

    left: NDArray[np.float32]
    right: NDArray[np.float32]
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the matrix changed."""
        return self.left.shape[0], self.right.shape[1]

    def dense(self) -> NDArray[np.float32]:
        """The change as a matrix (out, in), fp32."""
        return np.float32(self.scale) * (self.left @ self.right)


@dataclass(frozen=True)
class Adapter:
    """An adapter by the base model's tensor names: tensors it replaces whole, and low-rank changes made after that.

    Tensors replaced are fp32; buffers of integers are kept as bytes.
    """

    low_rank: Mapping[str, LowRank]
    replaced: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class _Factor:
    """Where a factor lies; ``turned`` where the file holds its transpose."""

    entry: TensorEntry
    turned: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return self.entry.shape[::-1] if self.turned else self.entry.shape

    def read(self, stream: BinaryIO) -> NDArray[np.float32]:
        tensor = _read(self.entry, stream)
        return np.ascontiguousarray(tensor.T) if self.turned else tensor


def read_adapter_config(file: Path) -> dict[str, Any]:
    """Read ``adapter_config.json``; raises `UnsupportedCheckpoint` for what is not plain LoRA."""
    config = read_json(file)
    kind = config.get("peft_type", "LORA")
    reason = ""
    if kind != "LORA":
        reason = f"its peft_type is {kind!r}"
    elif config.get("bias", "none") != "none":
        reason = f"it trains biases (bias: {config['bias']!r})"
    elif str(config.get("init_lora_weights", "")).lower().startswith(_CHANGE_THE_BASE):
        reason = f"its start {config['init_lora_weights']!r} changed the base too"
    else:
        used = [key for key in _UNSUPPORTED if config.get(key)]
        reason = f"it uses {', '.join(used)}" if used else ""
    if reason:
        raise UnsupportedCheckpoint(
            f"{file.parent} is not a plain LoRA adapter: {reason}.",
            hint="Merge it into its base with peft (merge_and_unload), and use the merged model.",
        )
    return config


def read_adapter(folder: Path, config: Mapping[str, Any], base: Mapping[str, TensorEntry]) -> Adapter:
    """Read the adapter in ``folder`` with `read_adapter_config`'s ``config``, made for a model of the tensors ``base``.

    Rank and alpha patterns, rsLoRA, embeddings and modules_to_save are honoured. Shapes are compared with the base
    before anything is read, so memory is bounded by the base's size. Raises `UnsupportedCheckpoint` for what is not a
    plain LoRA, `MismatchedModels` where it does not fit the base, `MalformedCheckpoint`, `NonFiniteWeights`.
    """
    file = find_file(folder, WEIGHTS_NAME)
    if file is None:
        found = ", ".join(sorted(other.name for other in folder.glob("adapter_model*"))) or "no weights"
        raise UnsupportedCheckpoint(
            f"{folder} holds {found}; {WEIGHTS_NAME} was expected.",
            hint="Save the adapter as safetensors (the default of peft); pickled weights are never read.",
        )
    factors, whole = _sort(folder, read_header(file), base)
    scales = {module: _check(folder, config, module, pair, base) for module, pair in factors.items()}
    low_rank = {}
    with open(file, "rb") as stream:
        for module, pair in factors.items():
            left, right = pair["B"].read(stream), pair["A"].read(stream)
            # A layer that stores (in, out) is changed by the transpose; embeddings say it by how they are stored.
            if config.get("fan_in_fan_out") and not pair["B"].turned:
                left, right = np.ascontiguousarray(right.T), np.ascontiguousarray(left.T)
            low_rank[f"{module}.weight"] = LowRank(left, right, scales[module])
        replaced = {name: _read(entry, stream) for name, entry in whole.items()}
    return Adapter(low_rank, replaced)


def _sort(
    folder: Path, header: Mapping[str, TensorEntry], base: Mapping[str, TensorEntry]
) -> tuple[dict[str, dict[str, _Factor]], dict[str, TensorEntry]]:
    """Factors by module and side, and tensors that are replaced whole by their name in the base."""
    factors: dict[str, dict[str, _Factor]] = {}
    whole: dict[str, TensorEntry] = {}
    for key, entry in header.items():
        name = key.removeprefix(_PREFIX)
        match = _FACTOR.fullmatch(name)
        target = f"{match['module']}.weight" if match else _WHOLE.sub("", name)
        if match is None and ".lora_" in name:
            raise UnsupportedCheckpoint(
                f"{folder} holds {key!r}, which plain LoRA has not.",
                hint="Merge it into its base with peft (merge_and_unload), and use the merged model.",
            )
        if target not in base:
            raise MismatchedModels(
                f"{folder} changes {target!r}, which the base model has not.",
                hint="Is this adapter for another base model?",
            )
        if match is None:
            twice = target in whole
            alike = entry.dtype == base[target].dtype or (_is_float(entry) and _is_float(base[target]))
            if entry.shape != base[target].shape or not alike:
                raise MismatchedModels(
                    f"{folder} replaces {target!r} by {entry.dtype} of shape {list(entry.shape)}; "
                    f"the base has {base[target].dtype} of shape {list(base[target].shape)}.",
                    hint="Is this adapter for another base model, or was its vocabulary resized?",
                )
            whole[target] = entry
        else:
            # Embeddings store A (r, in) and B (out, r) of the transposed change: (B A)^T = A^T B^T.
            turned = match["embedding"] is not None
            side = match["factor"] if not turned else {"A": "B", "B": "A"}[match["factor"]]
            twice = side in factors.setdefault(match["module"], {})
            factors[match["module"]][side] = _Factor(entry, turned)
        if twice:
            raise MalformedCheckpoint(f"{folder} holds {target!r} twice, once as {key!r}.", hint="Save it again.")
    return factors, whole


def _check(
    folder: Path, config: Mapping[str, Any], module: str, pair: Mapping[str, _Factor], base: Mapping[str, TensorEntry]
) -> float:
    """Check the factors of one module against each other, the config and the base; returns their scale."""
    if pair.keys() != {"A", "B"} or pair["A"].turned != pair["B"].turned:
        held = ", ".join(factor.entry.name for factor in pair.values())
        raise MalformedCheckpoint(f"{folder} holds {held} for {module}; a pair of A and B was expected.", hint=_AGAIN)
    left, right = pair["B"].shape, pair["A"].shape
    if len(left) != 2 or len(right) != 2 or left[1] != right[0] or left[1] == 0:
        raise MalformedCheckpoint(
            f"{folder}: the factors of {module} have shapes {list(left)} and {list(right)}; "
            "(out, r) and (r, in) were expected, with r at least 1.",
            hint=_AGAIN,
        )
    rank = left[1]
    expected = _by_pattern(folder, config, "rank_pattern", module, config.get("r", rank))
    if rank != expected:
        raise MalformedCheckpoint(
            f"{folder}: the factors of {module} have rank {rank}; {CONFIG_NAME} says {expected!r}.", hint=_AGAIN
        )
    for factor in pair.values():
        if not _is_float(factor.entry):
            raise MalformedCheckpoint(
                f"{folder}: {factor.entry.name} holds {factor.entry.dtype}; floats were expected.", hint=_AGAIN
            )
    target = base[f"{module}.weight"]
    swap = bool(config.get("fan_in_fan_out")) and not pair["B"].turned
    shape = (right[1], left[0]) if swap else (left[0], right[1])
    if shape != target.shape or not _is_float(target):
        raise MismatchedModels(
            f"{folder} changes {target.name!r} as floats of shape {list(shape)}; "
            f"in the base it has {target.dtype} of shape {list(target.shape)}.",
            hint="Is this adapter for another base model?",
        )
    if rank > max(shape):
        raise UnsupportedCheckpoint(
            f"{folder} changes {target.name!r} of shape {list(shape)} by factors of rank {rank}, larger than itself.",
            hint="Merge it into its base with peft (merge_and_unload), and use the merged model.",
        )
    return _scale(folder, config, module, rank)


_AGAIN = "Save or download the adapter again."


def _scale(folder: Path, config: Mapping[str, Any], module: str, rank: int) -> float:
    """alpha / r, or alpha / sqrt(r) with rsLoRA; alpha by module where there is a pattern."""
    alpha = _by_pattern(folder, config, "alpha_pattern", module, config.get("lora_alpha", 8))
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not abs(alpha) < 1e9:
        raise MalformedCheckpoint(
            f"{folder / CONFIG_NAME}: alpha of {module} is {alpha!r}; a number was expected.", hint=_AGAIN
        )
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _by_pattern(folder: Path, config: Mapping[str, Any], key: str, module: str, default: Any) -> Any:
    """peft's rule: the first pattern (a regular expression) that matches the end of a module's name, at a dot."""
    patterns = config.get(key) or {}
    if not isinstance(patterns, dict):
        raise MalformedCheckpoint(f"{folder / CONFIG_NAME}: {key} is not an object.", hint=_AGAIN)
    for pattern, value in patterns.items():
        # More repetition than this could keep the matching of a hostile pattern busy for years.
        if len(re.findall(r"[*+?{]", pattern)) > 2 or re.search(r"\)[*+?{]", pattern):
            raise UnsupportedCheckpoint(
                f"{folder / CONFIG_NAME}: the {key} {pattern[:200]!r} is too involved.",
                hint="Name the modules without nested or more than two repetitions.",
            )
        try:
            found = re.fullmatch(rf"(.*\.)?({pattern})", module)
        except (re.error, OverflowError, RecursionError) as error:
            raise MalformedCheckpoint(
                f"{folder / CONFIG_NAME}: the {key} {pattern[:200]!r} is no regular expression: {error}.", hint=_AGAIN
            ) from None
        if found:
            return value
    return default


def _is_float(entry: TensorEntry) -> bool:
    return entry.dtype.is_floating_point


def _read(entry: TensorEntry, stream: BinaryIO) -> NDArray[Any]:
    """The whole tensor, floats as fp32, integers as bytes; raises `NonFiniteWeights`."""
    stored = np.empty(entry.nbytes, dtype=np.uint8)
    if entry.nbytes:
        stream.seek(entry.offset)
        if stream.readinto(stored.data) != entry.nbytes:  # type: ignore[attr-defined]
            raise MalformedCheckpoint(f"{entry.file} ended within {entry.name!r}.", hint=_AGAIN)
    if not _is_float(entry):
        return stored
    tensor = widen(stored, entry.dtype).reshape(entry.shape)
    # NaN and infinity go through a sum; only a sum that overflows needs the second look.
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(tensor.sum())
    if not math.isfinite(total) and not np.isfinite(tensor).all():
        raise NonFiniteWeights(
            f"Tensor {entry.name!r} of the adapter {entry.file.parent} holds NaN or infinity.",
            hint="That adapter is damaged or its training diverged; leave it out.",
        )
    return tensor
