"""Where each tensor of a fine-tune goes in a LoRA adapter: by the module of the live model whose weight it is."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kinship.checkpoints.adapter_config import AdapterConfig
from kinship.checkpoints.architecture import Architecture, architecture_of
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.expert_lora import expert_pieces, stacked_targets
from kinship.checkpoints.module_kinds import kind_in, module_kind

Saved = Literal["embeddings", "norms", "biases", "others"]


@dataclass(frozen=True)
class Piece:
    """``count`` elements of ``tensor`` from ``first`` on."""

    tensor: str
    first: int
    count: int


@dataclass(frozen=True)
class Matrix:
    """A matrix of ``shape``, as files store it: the rows of its ``pieces`` below each other."""

    shape: tuple[int, int]
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Target:
    """A module that gets factors: one pair, or one for each of the ``matrices`` of stacked experts.

    key: what the adapter's file calls the module; module: what the live model does. parameter: what peft is told in
    ``target_parameters``, where the weight is no linear layer's. stacked: it is one of experts. turned: matrices are
    stored as (in, out).
    """

    key: str
    module: str
    matrices: tuple[Matrix, ...]
    parameter: str | None = None
    stacked: bool = False
    turned: bool = False

    @property
    def tensors(self) -> list[str]:
        """The tensors of the files that it changes."""
        return list(dict.fromkeys(piece.tensor for matrix in self.matrices for piece in matrix.pieces))


@dataclass(frozen=True)
class Whole:
    """A tensor that factors do not suit, of the live model's ``parameter``; ``kind``: what it is kept whole among."""

    tensor: str
    parameter: str
    kind: Saved

    @property
    def module(self) -> str:
        """The module that it belongs to."""
        return self.parameter.rpartition(".")[0]


@dataclass(frozen=True)
class Layout:
    """What becomes of tensors: ``targets``, those to be kept whole if that is wanted, and why others have no place.

    modules: the names of all modules. task: peft's name for what the model is for, where it has one.
    """

    targets: tuple[Target, ...]
    whole: tuple[Whole, ...]
    left_out: dict[str, str]
    modules: frozenset[str]
    task: str | None


def layout_of(base: Checkpoint, names: Sequence[str]) -> Layout:
    """The layout of the tensors ``names`` of ``base``: as transformers makes the model, else by their names.

    Linear layers, Conv1D, routers and stacked experts get factors. Cost: as `architecture_of`; no weight is read.
    """
    architecture = architecture_of(base)
    return _by_names(base, names) if architecture is None else _Sorter(base, architecture).sort(names)


class _Sorter:
    """Sorts the tensors of one model by its ``architecture``."""

    def __init__(self, base: Checkpoint, architecture: Architecture) -> None:
        import torch
        from transformers.pytorch_utils import Conv1D

        self._base, self._architecture = base, architecture
        self._linear, self._conv1d = torch.nn.Linear, Conv1D
        self._modules: dict[str, Any] = dict(architecture.model.named_modules())

    def sort(self, names: Sequence[str]) -> Layout:
        """See `layout_of`."""
        wanted = set(names)
        targets = self._experts(wanted)
        stacked = {name for target in targets for name in target.tensors}
        whole: list[Whole] = []
        left_out: dict[str, str] = {}
        for name in names:
            place = self._architecture.place(name)
            if name in stacked:
                continue
            if place is None:
                left_out[name] = "transformers passes over it"
            elif place.pattern is not None:
                left_out[name] = f"the live model has it as a part of {place.parameter}"
            else:
                found = self._placed(name, place.parameter)
                if isinstance(found, Target):
                    targets.append(found)
                elif isinstance(found, Whole):
                    whole.append(found)
                else:
                    left_out[name] = "it belongs to a module that holds others"
        # peft saves no module whole whose parameters it wraps, such as experts and routers with biases.
        wrapped = {target.module for target in targets if target.parameter is not None}
        left_out |= {one.tensor: "its module has factors" for one in whole if one.module in wrapped}
        kept = tuple(one for one in whole if one.module not in wrapped)
        return Layout(tuple(targets), kept, left_out, frozenset(self._modules), self._task())

    def _placed(self, name: str, parameter: str) -> Target | Whole | None:
        module, _, own = parameter.rpartition(".")
        owner, shape = self._modules[module], self._base.tensors[name].shape
        kind = kind_in(self._architecture.model, parameter)
        if own == "weight" and len(shape) == 2 and kind not in ("embeddings", "norms", "position biases"):
            matrix = (_whole_matrix(self._base, name),)
            if isinstance(owner, self._linear):
                return Target(module, module, matrix)
            if isinstance(owner, self._conv1d):
                return Target(module, module, matrix, turned=True)
            if kind == "router":
                return Target(module, module, matrix, parameter)
        if any(True for _ in owner.children()):
            return None
        if isinstance(owner, self._linear | self._conv1d):
            return Whole(name, parameter, "biases") if own == "bias" else None
        kinds: dict[str, Saved] = {"embeddings": "embeddings", "norms": "norms"}
        return Whole(name, parameter, kinds.get(kind, "others"))

    def _experts(self, wanted: set[str]) -> list[Target]:
        """Stacked experts of which all that the files hold is ``wanted``."""
        pieces: dict[str, dict[str, int]] = {}
        for parameter, shape in self._architecture.parameters.items():
            if len(shape) == 3 and kind_in(self._architecture.model, parameter) == "experts":
                found = expert_pieces(parameter, shape, self._architecture, self._base)
                if found is not None and wanted.issuperset(found):
                    pieces[parameter] = found
        config = AdapterConfig(Path(), {"target_parameters": sorted(pieces)})
        targets = []
        for key, experts in stacked_targets(config, self._base).items():
            count, height, width = experts.shape
            rows: list[list[Piece]] = [[] for _ in range(count)]
            for name, first in sorted(pieces[experts.parameter].items(), key=lambda item: item[1]):
                size, place = math.prod(self._base.tensors[name].shape), first
                while place < first + size:  # a tensor holds one expert, a part of one, or all of them
                    expert, inside = divmod(place, height * width)
                    step = min(first + size - place, height * width - inside)
                    rows[expert].append(Piece(name, place - first, step))
                    place += step
            matrices = tuple(Matrix((height, width), tuple(row)) for row in rows)
            module = experts.parameter.rpartition(".")[0]
            targets.append(Target(key, module, matrices, experts.parameter, True, experts.turned))
        return targets

    def _task(self) -> str | None:
        named = type(self._architecture.model).__name__
        if named.endswith(("ForCausalLM", "LMHeadModel")):
            return "CAUSAL_LM"
        seq2seq = self._base.config.get("is_encoder_decoder") and "Generation" in named
        return "SEQ_2_SEQ_LM" if seq2seq else None


def _whole_matrix(base: Checkpoint, name: str) -> Matrix:
    height, width = base.tensors[name].shape
    return Matrix((height, width), (Piece(name, 0, height * width),))


def _by_names(base: Checkpoint, names: Iterable[str]) -> Layout:
    """Where no architecture is known: matrices called weights are linear layers', but for tables and norms."""
    targets, whole = [], []
    for name in names:
        module, _, own = name.rpartition(".")
        kind = module_kind(name)
        if own == "weight" and len(base.tensors[name].shape) == 2 and kind not in ("embeddings", "norms"):
            targets.append(Target(module, module, (_whole_matrix(base, name),)))
        elif kind in ("embeddings", "norms"):
            whole.append(Whole(name, name, "embeddings" if kind == "embeddings" else "norms"))
        else:
            whole.append(Whole(name, name, "biases" if own == "bias" else "others"))
    return Layout(tuple(targets), tuple(whole), {}, frozenset(target.module for target in targets), None)
