"""Which tensors of several checkpoints can be compared, and why the others cannot."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.tied import tied_heads
from kinship.errors import MismatchedModels
from kinship.patterns import Pattern


@dataclass(frozen=True)
class Alignment:
    """``names``: the tensors compared, sorted. ``left_out``: every other tensor's name with the reason.

    resized: those left out because their numbers of rows differ, as those of vocabularies do.
    """

    names: tuple[str, ...]
    left_out: dict[str, str] = field(default_factory=dict)
    resized: tuple[str, ...] = ()


def compared(names: Sequence[str], counts: Sequence[float]) -> str:
    """Identity of a set of tensors compared: 16 hexadecimal digits over their names and numbers of elements."""
    return hashlib.sha256(json.dumps([list(names), list(counts)]).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Selection:
    """Which tensors are wanted: names that match ``include`` (if given) and not ``exclude``; regular expressions.

    Patterns may match anywhere in a name. Raises `InvalidConfig` for one that is no regular expression or cannot be
    matched in linear time.
    """

    include: str | None = None
    exclude: str | None = None

    def __post_init__(self) -> None:
        for pattern in (self.include, self.exclude):
            Pattern(pattern or "")

    def refusal(self, name: str) -> str | None:
        """Why tensor ``name`` is not wanted; None if it is."""
        if self.include is not None and not Pattern(self.include).found_in(name):
            return f"not included by {self.include!r}"
        if self.exclude is not None and Pattern(self.exclude).found_in(name):
            return f"excluded by {self.exclude!r}"
        return None


EVERYTHING = Selection()


def align(base: Checkpoint, models: Sequence[Checkpoint], selection: Selection = EVERYTHING) -> Alignment:
    """Align ``models`` with ``base`` from headers alone.

    Floating-point tensors that all hold in one shape are compared. A tensor that some lack, or that differs only
    in its first dimension (a resized vocabulary), is left out and reported. So is a head that is tied to the embedding,
    whether it is stored twice or once: it counts once.

    Raises `MismatchedModels` when shapes differ in any other way, or when nothing is left to compare.
    """
    everyone = [base, *models]
    names: list[str] = []
    left_out: dict[str, str] = {}
    resized: list[str] = []
    tied = tied_heads(everyone)
    for name in sorted({name for model in everyone for name in model.tensors}):
        refusal = selection.refusal(name) or tied.get(name)
        if refusal:
            left_out[name] = refusal
            continue
        missing = [model.id for model in everyone if name not in model.tensors]
        if missing:
            left_out[name] = f"missing from {', '.join(missing)}"
            continue
        shapes = [model.tensors[name].shape for model in everyone]
        other = next((index for index, shape in enumerate(shapes) if shape != shapes[0]), None)
        if other is not None:
            _require_same_rows(name, everyone[0], everyone[other])
            resized.append(name)
            left_out[name] = f"{shapes[other][0]} rows in {everyone[other].id}, {shapes[0][0]} in {base.id}"
        elif not all(model.tensors[name].dtype.is_floating_point for model in everyone):
            left_out[name] = "not floating point"
        elif base.tensors[name].count == 0:
            left_out[name] = "empty"
        else:
            names.append(name)
    if not names:
        name, reason = next(iter(left_out.items()), ("", ""))
        raise MismatchedModels(
            f"{base.id} and {', '.join(model.id for model in models)} have no tensor in common"
            f"{f' that can be compared; {name} is {reason}' if name else ''}.",
            hint="Kinship needs fine-tunes of one base: check that the base is the right one, and any patterns.",
        )
    return Alignment(tuple(names), left_out, tuple(resized))


def require_same_tensors(base: Checkpoint, models: Sequence[Checkpoint]) -> None:
    """Raise `MismatchedModels` unless every model holds exactly the tensors of ``base``: its shapes, its floats."""
    for model in models:
        for name in sorted(base.tensors.keys() ^ model.tensors.keys()):
            owner, other = (base, model) if name in base.tensors else (model, base)
            tied = tied_heads([base, model]).get(name)
            raise MismatchedModels(
                f"{owner.id} has the tensor {name!r}, {other.id} has not.",
                hint=f"It is {tied}; if it is in {owner.id} too, save {owner.id} again with save_pretrained."
                if tied
                else "Models that are merged must be fine-tunes of one architecture.",
            )
        for name, entry in base.tensors.items():
            found = model.tensors[name]
            if found.shape != entry.shape:
                raise _shape_mismatch(name, base, model)
            if found.dtype.is_floating_point != entry.dtype.is_floating_point:
                raise MismatchedModels(
                    f"Tensor {name!r} is {found.dtype.name} in {model.id}, but {entry.dtype.name} in {base.id}.",
                    hint="Integers are no weights: use the checkpoint that this one was made from.",
                )


def _require_same_rows(name: str, base: Checkpoint, model: Checkpoint) -> None:
    expected, found = base.tensors[name].shape, model.tensors[name].shape
    if len(expected) != 2 or len(found) != 2 or expected[1] != found[1]:
        raise _shape_mismatch(name, base, model)


def _shape_mismatch(name: str, base: Checkpoint, model: Checkpoint) -> MismatchedModels:
    return MismatchedModels(
        f"Tensor {name!r} has shape {list(model.tensors[name].shape)} in {model.id}, "
        f"but {list(base.tensors[name].shape)} in {base.id}.",
        hint="All models must share the architecture of the base; leave this one out or change the base.",
    )
