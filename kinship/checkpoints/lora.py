"""LoRA adapters, read from their files without importing peft: what they make of each tensor of their base.

Hu et al., arXiv 2106.09685; rank-stabilised scaling, arXiv 2312.03732; DoRA, arXiv 2402.09353.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from kinship.checkpoints.adapter_config import AGAIN, CONFIG_NAME, MERGE_IT, AdapterConfig
from kinship.checkpoints.architecture import architecture_of
from kinship.checkpoints.changes import Adapter, Change, Magnitudes, Rows, settle_head
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.dtypes import widen
from kinship.checkpoints.expert_lora import Experts, expert_changes, require_fitting, stacked_targets
from kinship.checkpoints.folder_files import find_file
from kinship.checkpoints.header import TensorEntry, read_header
from kinship.checkpoints.low_rank import LowRank, Start
from kinship.checkpoints.tensor_names import base_tensor_of
from kinship.checkpoints.tied import is_embedding, tied_pair, ties_more, ties_of
from kinship.errors import MalformedCheckpoint, MismatchedModels, NonFiniteWeights, UnsupportedCheckpoint

WEIGHTS_NAME = "adapter_model.safetensors"
_OTHER_BASE = "Is this adapter for another base model?"

_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<factor>[AB])(\.weight)?")
_BIAS = re.compile(r"(?P<module>.+)\.lora_B\.bias")
_MAGNITUDE = re.compile(r"(?P<module>.+)\.lora_magnitude_vector(\.weight)?")
_TOKENS = re.compile(r"(?P<module>.+)\.token_adapter\.trainable_tokens_delta")
# How peft marks a module that it saves whole: one of modules_to_save, or what lies beneath its adapter.
_COPY = re.compile(r"\.modules_to_save(\.default)?(?=\.)")
_BENEATH = re.compile(r"(\.token_adapter)?\.base_layer(?=\.)")
# Modules that may be of transformers' Conv1D, which stores its weight as (in, out).
_CONV1D = re.compile(r"\.c_(attn|proj|fc)\.")
_UNUSED = re.compile(r"\.original_module(?=\.)")


@dataclass(frozen=True)
class _Factor:
    """Where a factor lies; ``turned`` where the file holds its transpose."""

    entry: TensorEntry
    turned: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return self.entry.shape[::-1] if self.turned else self.entry.shape


@dataclass(frozen=True)
class _Whole:
    """A tensor to be replaced. copy: of a module that was trained as a copy of its own, not where it is."""

    entry: TensorEntry
    copy: bool


@dataclass
class _Module:
    """What the file holds for a module. turned: its weight is stored as (in, out)."""

    name: str
    turned: bool
    factors: dict[str, _Factor] = field(default_factory=dict)
    magnitude: TensorEntry | None = None
    bias: TensorEntry | None = None
    rows: TensorEntry | None = None


@dataclass(frozen=True)
class _Contents:
    """The file sorted: modules by the base's tensor that is their weight, what is replaced by the base's names, and
    the factors of stacked experts.
    """

    modules: dict[str, _Module]
    whole: dict[str, _Whole]
    experts: dict[Experts, dict[str, TensorEntry]]


def factor_of(key: str) -> tuple[str, str] | None:
    """The module and side, A or B, that ``key`` of a file is a factor of; None where it is of no linear layer.

    >>> factor_of("base_model.model.layers.0.q_proj.lora_A.weight")
    ('layers.0.q_proj', 'A')
    """
    match = _FACTOR.fullmatch(key.removeprefix(_PREFIX))
    return None if match is None or match["embedding"] else (match["module"], match["factor"])


def read_adapter(config: AdapterConfig, base: Checkpoint) -> Adapter:
    """Read the adapter of `read_adapter_config`'s ``config``, made for the model ``base``.

    Rank and alpha patterns, rsLoRA, DoRA, biases, embeddings, convolutions, modules_to_save and trained tokens are
    honoured, and so are heads that are tied to the embedding: the result is what peft's live model computes. Shapes
    are compared with the base before anything is read, so memory is bounded by the base's size. Raises
    `UnsupportedCheckpoint` for what cannot be applied, `MismatchedModels` where it does not fit the base,
    `MalformedCheckpoint`, `NonFiniteWeights`.
    """
    folder = config.folder
    file = find_file(folder, WEIGHTS_NAME)
    if file is None:
        found = ", ".join(sorted(other.name for other in folder.glob("adapter_model*"))) or "no weights"
        raise UnsupportedCheckpoint(
            f"{folder} holds {found}; {WEIGHTS_NAME} was expected.",
            hint="Save the adapter as safetensors (the default of peft); pickled weights are never read.",
        )
    tie = tied_pair(base)
    tensors = dict(base.tensors)
    if tie is not None:
        tensors.setdefault(tie[0], tensors[tie[1]])
    contents = _sort(config, read_header(file), tensors, tie, base)
    changed = [*contents.modules, *contents.whole]
    if ties_more(base) and (table := next(filter(is_embedding, changed), None)):
        raise UnsupportedCheckpoint(
            f"{folder} changes {table!r}, and more than a head may be tied to it in {base.id}.", hint=MERGE_IT
        )
    with open(file, "rb") as stream:
        changes = {name: Change(replaced=_read(each.entry, stream)) for name, each in contents.whole.items()}
        for experts, factors in contents.experts.items():
            read = {side: _read(entry, stream) for side, entry in factors.items()}
            changes |= expert_changes(config, experts, read, base)
        for target, module in contents.modules.items():
            beneath = target in contents.whole and not contents.whole[target].copy
            if config.start and module.factors and tie is not None and target in tie and not beneath:
                raise UnsupportedCheckpoint(
                    f"{folder} took its start from {target!r}, which is tied, and does not hold what is left of it.",
                    hint=MERGE_IT,
                )
            change = _change(config, target, module, tensors[target], stream, started=not beneath)
            changes[target] = replace(change, replaced=changes.get(target, change).replaced)
            if module.bias is not None:
                name = _bias_of(target)
                added = np.float32(config.scale(module.name, _rank(module))) * _read(module.bias, stream)
                changes[name] = replace(changes.get(name, Change()), added=added)
    if tie is None:
        return Adapter(changes)
    copies = frozenset(name for name, each in contents.whole.items() if each.copy)
    return settle_head(changes, *tie, copies, keep_tied=config.ties, base=base)


def _sort(
    config: AdapterConfig,
    header: Mapping[str, TensorEntry],
    base: Mapping[str, TensorEntry],
    tie: tuple[str, str] | None,
    model: Checkpoint,
) -> _Contents:
    """What the file holds, each checked against ``config`` and the tensors ``base`` of the ``model``."""
    modules: dict[str, _Module] = {}
    whole: dict[str, _Whole] = {}
    keys = {key.removeprefix(_PREFIX) for key in header}
    ties = ties_of(model) or {}
    stacked = stacked_targets(config, model)
    experts: dict[Experts, dict[str, TensorEntry]] = {}

    def module_of(match: re.Match[str], key: str) -> _Module:
        target = _in_base(config.folder, _stored(f"{match['module']}.weight", base, model), base)
        if target not in modules:
            modules[target] = _Module(match["module"], _stores_transpose(config, target, model))
        return modules[target]

    for key, entry in header.items():
        name = key.removeprefix(_PREFIX)
        twice = False
        if _UNUSED.search(name) or (_COPY.search(name) and _COPY.sub("", name) in keys and "bias" in name):
            continue  # bias: all lists the biases of modules saved whole once more
        match = _FACTOR.fullmatch(name)
        if match and match["module"] in stacked:
            pair = experts.setdefault(stacked[match["module"]], {})
            twice = match["factor"] in pair
            pair[match["factor"]] = entry
        elif match:
            # Embeddings store A (r, in) and B (out, r) of the transposed change: (B A)^T = A^T B^T.
            turned = match["embedding"] is not None
            side = match["factor"] if not turned else {"A": "B", "B": "A"}[match["factor"]]
            module = module_of(match, key)
            twice = side in module.factors
            module.factors[side] = _Factor(entry, turned)
        elif config.dora and (match := _MAGNITUDE.fullmatch(name)):
            module_of(match, key).magnitude = entry
        elif config.settings.get("lora_bias") and (match := _BIAS.fullmatch(name)):
            module_of(match, key).bias = entry
        elif match := _TOKENS.fullmatch(name):
            module_of(match, key).rows = entry
        elif ".lora_" in name or ".token_adapter.trainable" in name:
            raise UnsupportedCheckpoint(
                f"{config.folder} holds {key!r}, which by its {CONFIG_NAME} it has not.", hint=MERGE_IT
            )
        else:
            parameter = _BENEATH.sub("", _COPY.sub("", name))
            if parameter in ties and parameter not in base:  # as a bias of BERT's, which its file has once
                parameter = ties[parameter]
                if parameter in keys:
                    continue
            target = _in_base(config.folder, _stored(parameter, base, model), base)
            _require_replaceable(config.folder, target, entry, base[target])
            twice = target in whole
            kept_tied = config.ties and tie is not None and target == tie[0]
            copy = _BENEATH.search(name) is None and (
                _COPY.search(name) is not None or config.saves(parameter.rpartition(".")[0]) or kept_tied
            )
            whole[target] = _Whole(entry, copy)
        if twice:
            raise MalformedCheckpoint(f"{config.folder} holds the tensor of {key!r} twice.", hint="Save it again.")
    for target, module in modules.items():
        _check(config, target, module, base)
    for one, pair in experts.items():
        require_fitting(config, one, pair)
    return _Contents(modules, whole, experts)


def _stored(parameter: str, base: Mapping[str, TensorEntry], model: Checkpoint) -> str:
    """As `base_tensor_of`; and where the names do not tell, as transformers reads the files of ``model``."""
    found = base_tensor_of(parameter, base)
    architecture = architecture_of(model) if found not in base else None
    return (architecture and architecture.tensor_of(parameter, base)) or found


def _stores_transpose(config: AdapterConfig, target: str, model: Checkpoint) -> bool:
    """Whether the weight ``target`` is stored as (in, out): by the class of its module, which is what peft goes by. The
    flag in the config is what the last module was; it is taken at its word where no class is known.
    """
    if not config.turned and not _CONV1D.search(target):
        return False
    architecture = architecture_of(model)
    place = architecture.place(target) if architecture is not None else None
    if architecture is None or place is None:
        return config.turned
    return type(architecture.model.get_submodule(place.parameter.rpartition(".")[0])).__name__ == "Conv1D"


def _in_base(folder: Path, target: str, base: Mapping[str, TensorEntry]) -> str:
    if target not in base:
        raise MismatchedModels(f"{folder} changes {target!r}, which the base model has not.", hint=_OTHER_BASE)
    return target


def _require_replaceable(folder: Path, target: str, entry: TensorEntry, base: TensorEntry) -> None:
    alike = entry.dtype == base.dtype or (_is_float(entry) and _is_float(base))
    if entry.shape != base.shape or not alike:
        raise MismatchedModels(
            f"{folder} replaces {target!r} by {entry.dtype} of shape {list(entry.shape)}; "
            f"the base has {base.dtype} of shape {list(base.shape)}.",
            hint="Is this adapter for another base model, or was its vocabulary resized?",
        )


def _check(config: AdapterConfig, target: str, module: _Module, base: Mapping[str, TensorEntry]) -> None:
    """Check what the file holds for one module against each other, the config and the base."""
    folder, weight = config.folder, base[target]
    others = [entry for entry in (module.magnitude, module.bias, module.rows) if entry is not None]
    for entry in [*(factor.entry for factor in module.factors.values()), *others]:
        if not _is_float(entry):
            raise MalformedCheckpoint(f"{folder}: {entry.name} holds {entry.dtype}; floats were expected.", hint=AGAIN)
    if module.rows is not None:
        ids = config.tokens(module.name)
        if module.rows.shape != (len(ids), *weight.shape[1:]) or max(ids, default=0) >= weight.shape[0]:
            raise MismatchedModels(
                f"{folder} replaces {len(ids)} rows of {target!r} by {list(module.rows.shape)}; "
                f"in the base it has {list(weight.shape)}.",
                hint=_OTHER_BASE,
            )
    if module.factors or len(others) > (module.rows is not None):
        _check_factors(config, target, module, weight)
    if module.bias is not None:
        bias = base.get(_bias_of(target))
        if bias is None or bias.shape != module.bias.shape:
            raise UnsupportedCheckpoint(
                f"{folder} gives {module.name} a bias; the base has no tensor {_bias_of(target)!r} of its shape.",
                hint="Train it without lora_bias, or on a model whose layers have biases.",
            )


def _check_factors(config: AdapterConfig, target: str, module: _Module, weight: TensorEntry) -> None:
    folder, pair = config.folder, module.factors
    if pair.keys() != {"A", "B"} or pair["A"].turned != pair["B"].turned:
        held = ", ".join(factor.entry.name for factor in pair.values())
        raise MalformedCheckpoint(
            f"{folder} holds {held or 'no factors'} for {module.name}; a pair of A and B was expected.", hint=AGAIN
        )
    left, right = pair["B"].shape, pair["A"].shape
    matrices = len(left) == 2 and len(right) == 2
    kernels = len(left) == len(right) == len(weight.shape) > 2 and set(left[2:]) == {1}
    if not (matrices or kernels) or left[1] != right[0] or left[1] == 0:
        raise MalformedCheckpoint(
            f"{folder}: the factors of {module.name} have shapes {list(left)} and {list(right)}; "
            "(out, r) and (r, in) were expected, with r at least 1.",
            hint=AGAIN,
        )
    rank, expected = left[1], config.rank(module.name, left[1])
    if rank != expected:
        raise MalformedCheckpoint(
            f"{folder}: the factors of {module.name} have rank {rank}; {CONFIG_NAME} says {expected!r}.", hint=AGAIN
        )
    swap = module.turned and not pair["B"].turned and matrices
    shape = (right[1], left[0]) if swap else (left[0], *right[1:])
    if shape != weight.shape or not _is_float(weight):
        raise MismatchedModels(
            f"{folder} changes {target!r} as floats of shape {list(shape)}; "
            f"in the base it has {weight.dtype} of shape {list(weight.shape)}.",
            hint=_OTHER_BASE,
        )
    if rank > max(left[0], math.prod(right[1:])):
        raise UnsupportedCheckpoint(
            f"{folder} changes {target!r} of shape {list(shape)} by factors of rank {rank}, larger than itself.",
            hint=MERGE_IT,
        )
    if config.start and (kernels or pair["B"].turned):
        raise UnsupportedCheckpoint(
            f"{folder} took its start {config.start!r} from {target!r}, which is no linear layer.", hint=MERGE_IT
        )
    lengths = left[0] if not pair["B"].turned else right[1]
    if config.dora and (module.magnitude is None or math.prod(module.magnitude.shape) != lengths):
        found = "none" if module.magnitude is None else f"shape {list(module.magnitude.shape)}"
        raise MalformedCheckpoint(
            f"{folder}: {module.name} should have a lora_magnitude_vector of {lengths} lengths; found {found}.",
            hint=AGAIN,
        )
    config.scale(module.name, rank)


def _change(
    config: AdapterConfig, target: str, module: _Module, weight: TensorEntry, stream: BinaryIO, *, started: bool
) -> Change:
    """What ``module`` does to its weight, read from ``stream``."""
    rows = None
    if module.rows is not None:
        rows = Rows(np.array(config.tokens(module.name), dtype=np.int64), _read(module.rows, stream))
    if not module.factors:
        return Change(rows=rows)
    left, right = (_matrix(module.factors[side], side, stream) for side in "BA")
    # A layer that stores (in, out) is changed by the transpose; embeddings say it by how they are stored.
    turned = module.factors["B"].turned
    swap = module.turned and not turned and len(weight.shape) == 2
    if swap:
        left, right = np.ascontiguousarray(right.T), np.ascontiguousarray(left.T)
    change = LowRank(left, right, config.scale(module.name, _rank(module)))
    start = Start(config.start, swap) if config.start and started else None
    magnitude = None
    if module.magnitude is not None:
        magnitude = Magnitudes(_read(module.magnitude, stream).reshape(-1), of_columns=turned or swap)
    return Change(low_rank=change, start=start, magnitudes=magnitude, rows=rows)


def _matrix(factor: _Factor, side: str, stream: BinaryIO) -> NDArray[np.float32]:
    tensor = _read(factor.entry, stream)
    if factor.turned:
        return np.ascontiguousarray(tensor.T)
    return tensor.reshape(-1, tensor.shape[1]) if side == "B" else tensor.reshape(tensor.shape[0], -1)


def _rank(module: _Module) -> int:
    return module.factors["B"].shape[1]


def _bias_of(weight: str) -> str:
    return f"{weight.removesuffix('weight')}bias"


def _is_float(entry: TensorEntry) -> bool:
    return entry.dtype.is_floating_point


def _read(entry: TensorEntry, stream: BinaryIO) -> NDArray[Any]:
    """The whole tensor, floats as fp32, integers as bytes; raises `NonFiniteWeights`."""
    stored = np.empty(entry.nbytes, dtype=np.uint8)
    if entry.nbytes:
        stream.seek(entry.offset)
        if stream.readinto(stored.data) != entry.nbytes:  # type: ignore[attr-defined]
            raise MalformedCheckpoint(f"{entry.file} ended within {entry.name!r}.", hint=AGAIN)
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
