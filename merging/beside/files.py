"""What lies beside the weights of a merge, as files: a config that people can read, and tensors."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal, TypeVar

import torch
from pydantic import Field, ValidationError

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.errors import MalformedCheckpoint, MismatchedModels
from kinship.validation import Strict
from merging.beside.smile import Expert
from merging.beside.surgery import Head
from merging.output import writer
from merging.output.folder import BESIDE_NAMES

SURGERY_NAME, SMILE_NAME = BESIDE_NAMES

Tensors = Mapping[str, torch.Tensor]
Config = TypeVar("Config", "SurgeryConfig", "SmileConfig")


class HeadFacts(Strict):
    """How one head was fitted: ``gap`` and ``mended`` are mean absolute differences on its own documents."""

    model: str
    tokens: int
    gap: float
    mended: float


class SurgeryConfig(Strict):
    """``surgery.json``. weights: digest of the weights that the heads are for. tensors: sha256 of their file."""

    schema_: Literal["kinship.surgery/1"] = Field("kinship.surgery/1", alias="schema")
    weights: str
    tensors: str
    rank: int
    heads: dict[str, HeadFacts]


class SmileConfig(Strict):
    """``smile.json``. weights: digest of the weights that the experts add to. tensors: sha256 of the experts' file."""

    schema_: Literal["kinship.smile/1"] = Field("kinship.smile/1", alias="schema")
    weights: str
    tensors: str
    experts: list[str]
    experts_per_token: int = Field(ge=1)
    layers: list[str]


@dataclass(frozen=True, eq=False)
class Beside:
    """What lies beside a model's weights: ``heads`` by name, and by layer ``experts``, of which a token takes so many.

    digest: of all of it; "" where there is nothing.
    """

    heads: Mapping[str, Head]
    experts: Mapping[str, Sequence[Expert]]
    experts_per_token: int = 1
    digest: str = ""


NOTHING = Beside({}, {})


def write_heads(
    folder: Path, weights: str, rank: int, heads: Mapping[str, Head], facts: Mapping[str, HeadFacts]
) -> None:
    """Put ``heads`` beside the ``weights`` (digest) in ``folder``."""
    tensors = {f"{name}.{part}": tensor for name, head in heads.items() for part, tensor in head._asdict().items()}
    digest = _write_tensors(folder / SURGERY_NAME, tensors)
    _write_config(folder / SURGERY_NAME, SurgeryConfig(weights=weights, tensors=digest, rank=rank, heads=dict(facts)))


def write_experts(
    folder: Path, weights: str, names: Sequence[str], layers: Mapping[str, Sequence[Expert]], experts_per_token: int
) -> None:
    """Put the experts called ``names`` of each of the ``layers`` beside the ``weights`` (digest) in ``folder``."""
    digest = _write_tensors(folder / SMILE_NAME, _named(layers))
    config = SmileConfig(
        weights=weights, tensors=digest, experts=list(names), experts_per_token=experts_per_token, layers=list(layers)
    )
    _write_config(folder / SMILE_NAME, config)


def held_experts(layers: Mapping[str, Sequence[Expert]], experts_per_token: int) -> Beside:
    """What `read_beside` would find of the same experts, from memory; its digest is of what they hold."""
    from safetensors.torch import save

    facts = json.dumps([experts_per_token, {layer: len(experts) for layer, experts in layers.items()}])
    tensors = {name: tensor.cpu().contiguous() for name, tensor in _named(layers).items()}
    return Beside({}, layers, experts_per_token, sha256(facts.encode() + save(tensors)).hexdigest())


def _named(layers: Mapping[str, Sequence[Expert]]) -> Tensors:
    return {
        f"{layer}.{number}.{part}": tensor
        for layer, experts in layers.items()
        for number, expert in enumerate(experts)
        for part, tensor in expert._asdict().items()
        if tensor is not None
    }


def read_beside(checkpoint: Checkpoint) -> Beside:
    """What lies beside the weights of ``checkpoint``; `NOTHING` where nothing does.

    Raises `MalformedCheckpoint` for files that are no such thing, and `MismatchedModels` where they were made for
    other weights.
    """
    heads: dict[str, Head] = {}
    experts: dict[str, list[Expert]] = {}
    per_token = 1
    surgery = _read_config(checkpoint, SURGERY_NAME, SurgeryConfig)
    if surgery is not None:
        tensors = _read_tensors(checkpoint.path / SURGERY_NAME, surgery)
        for name in surgery.heads:
            heads[name] = Head(*(_found(tensors, f"{name}.{part}", checkpoint) for part in Head._fields))
    smile = _read_config(checkpoint, SMILE_NAME, SmileConfig)
    if smile is not None:
        tensors = _read_tensors(checkpoint.path / SMILE_NAME, smile)
        per_token = smile.experts_per_token
        for layer in smile.layers:
            experts[layer] = [
                Expert(
                    _found(tensors, f"{layer}.{number}.left", checkpoint),
                    _found(tensors, f"{layer}.{number}.right", checkpoint),
                    _found(tensors, f"{layer}.{number}.gate", checkpoint),
                    tensors.get(f"{layer}.{number}.bias"),
                )
                for number in range(len(smile.experts))
            ]
    digests = [config.model_dump_json() for config in (surgery, smile) if config is not None]
    return Beside(heads, experts, per_token, sha256("".join(digests).encode()).hexdigest() if digests else "")


def _write_tensors(config: Path, tensors: Tensors) -> str:
    from safetensors.torch import save_file

    path = config.with_suffix(".safetensors")
    path.touch()
    usual = path.stat().st_mode
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, path)
    path.chmod(usual)  # the library leaves files that only their owner can read
    return writer.sha256(path)


def _write_config(path: Path, config: Strict) -> None:
    path.write_text(json.dumps(config.model_dump(by_alias=True), indent=2) + "\n", encoding="utf-8")


def _read_config(checkpoint: Checkpoint, name: str, kind: type[Config]) -> Config | None:
    path = checkpoint.path / name
    if not path.is_file():
        return None
    try:
        config = kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise MalformedCheckpoint(
            f"{path} is not what a merge wrote: {'.'.join(map(str, first['loc'])) or 'JSON'}: {first['msg']}.",
            hint="Merge again, or remove it.",
        ) from None
    if config.weights != checkpoint.digest:
        raise MismatchedModels(
            f"{path} was made for other weights than those of {checkpoint.id}.",
            hint="Merge again, or remove it to use the weights without.",
        )
    return config


def _read_tensors(path: Path, config: SurgeryConfig | SmileConfig) -> Tensors:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = path.with_suffix(".safetensors")
    if not file.is_file() or writer.sha256(file) != config.tensors:
        raise MalformedCheckpoint(f"{file} is not the file that {path.name} is about.", hint="Merge again.")
    try:
        return dict(load_file(file))
    except (SafetensorError, OSError) as error:
        raise MalformedCheckpoint(f"{file} is no safetensors file: {error}.", hint="Merge again.") from None


def _found(tensors: Tensors, name: str, checkpoint: Checkpoint) -> torch.Tensor:
    if name not in tensors:
        raise MalformedCheckpoint(f"{checkpoint.id} lacks {name!r} beside its weights.", hint="Merge again.")
    return tensors[name]
