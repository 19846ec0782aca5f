"""A LoRA adapter made of a fine-tune and its base: the truncated singular value decomposition of its task vector."""

import math
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from kinship.arrays import Float32
from kinship.checkpoints.checkpoint import Checkpoint, unchanged
from kinship.checkpoints.folder_files import text_config
from kinship.checkpoints.opening import open_checkpoint
from kinship.checkpoints.own_heads import with_own_heads
from kinship.checkpoints.references import parse_reference
from kinship.checkpoints.tied import tied_pair, ties_more
from kinship.checkpoints.unified import unified
from kinship.errors import InvalidConfig, MismatchedModels, about
from kinship.measures.alignment import align
from kinship.measures.passes import damaged
from kinship.output import output_folder, require_writable
from merging.extraction.layout import Layout, Matrix, Saved, Target, layout_of
from merging.extraction.peft_folder import AdapterWriter, foreign_in_adapter
from merging.kernels.spectral import low_rank_factors

RANK = 32

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Extracted:
    """What became of one module's change. shape: (out, in) of its weight, or (experts, out, in). norm, error: Frobenius
    norms of the change and of what its factors, rounded to fp32, lack of it.
    """

    module: str
    shape: tuple[int, ...]
    rank: int
    norm: float
    error: float


@dataclass(frozen=True)
class Extraction:
    """An adapter that was written: its ``modules`` with factors, and the tensors ``saved`` whole.

    left_out: tensors that changed, or may have, and are not in it, with the reason. lost: the Frobenius norm of the
    changes of those of them that could be read. parameters: numbers in the file.
    """

    modules: tuple[Extracted, ...]
    saved: tuple[str, ...]
    left_out: dict[str, str]
    lost: float
    parameters: int

    @property
    def relative_error(self) -> float:
        """What the adapter lacks of the task vector, over the task vector."""
        error = math.hypot(self.lost, *(module.error for module in self.modules))
        return error / math.hypot(self.lost, *(module.norm for module in self.modules))


def extract_lora(
    model: str | Path,
    base: str | Path,
    out: Path,
    *,
    rank: int | None = None,
    energy: float | None = None,
    save: Collection[Saved] = (),
    force: bool = False,
    progress: Progress | None = None,
) -> Extraction:
    """Write the PEFT adapter ``out`` that makes of ``base`` what is nearest to ``model`` (references).

    rank: of every pair of factors, `RANK` by default, and no more than a matrix has. energy: instead, the least rank
    that keeps this share of the sum of squares of each matrix's change. save: what is kept whole where it changed, as
    ``modules_to_save`` or biases; without it, such tensors stay the base's. Factors are fp32, their product unscaled.

    ``progress`` is told (bytes read, bytes in all). One matrix is held at a time, in float64, and an eigendecomposition
    of its smaller side taken: O(m^2 (m + n)). Raises the errors of `open_checkpoint` and `align`, `InvalidConfig`,
    `MismatchedModels` where no linear layer changed or the two are of different kinds, `NonFiniteWeights`,
    `OutputExists` or `OutputNotWritable`.
    """
    if rank is not None and energy is not None:
        raise InvalidConfig("Both a rank and an energy were given.", hint="Give one: each decides the ranks.")
    if rank is not None and rank < 1:
        raise InvalidConfig(f"The rank is {rank}; 1 or more was expected.", hint=f"The default is {RANK}.")
    if energy is not None and not 0.0 < energy <= 1.0:
        raise InvalidConfig(
            f"The energy is {energy}; a share above 0 and at most 1 was expected.",
            hint="0.9 keeps nine tenths of the squares of each change; 1 keeps all.",
        )
    if energy is None and rank is None:
        rank = RANK
    named = parse_reference(base)
    if named.adapter is not None:
        whole = replace(named, adapter=None)
        raise InvalidConfig(
            f"The base {base} is itself an adapter on {whole}, and an adapter is put on a whole model.",
            hint=f"Give --base {whole}: the new adapter then holds both changes. Or write the base as a model first "
            "(kinship merge with merge_method: passthrough).",
        )
    require_writable(out, force=force, folder=foreign_in_adapter)
    with ExitStack() as stack:
        opened = [stack.enter_context(open_checkpoint(reference)) for reference in (base, model)]
        stack.enter_context(unchanged(opened))
        _require_one_kind(*opened)
        shown, _ = unified(opened)
        first, second = with_own_heads(shown)
        alignment = align(first, [second])
        layout = layout_of(first, alignment.names)
        left_out = {name: why for name, why in alignment.left_out.items() if not why.startswith(("tied to", "not f"))}
        reading = _Reading(first, second, alignment.names, progress)
        with (
            output_folder(out, force=force, foreign=foreign_in_adapter) as folder,
            AdapterWriter(folder, named, layout, tied_pair(first)) as writer,
        ):
            found = _write(reading, layout, writer, rank, energy, set(save), left_out)
            writer.finish(out.name, f"it lacks {100 * found.relative_error:.2f} % of the task vector of {model}.")
    return found


def _require_one_kind(base: Checkpoint, model: Checkpoint) -> None:
    kinds = [text_config(each.config).get("model_type") for each in (base, model)]
    if None not in kinds and kinds[0] != kinds[1]:
        raise MismatchedModels(
            f"{model.id} is a {kinds[1]} model, {base.id} a {kinds[0]} model.",
            hint="Give the base that it was fine-tuned from.",
        )


def _write(
    reading: "_Reading",
    layout: Layout,
    writer: AdapterWriter,
    rank: int | None,
    energy: float | None,
    save: set[Saved],
    left_out: dict[str, str],
) -> Extraction:
    modules = []
    for target in layout.targets:
        found = _factorised(reading, target, writer, rank, energy)
        modules += [found] if found is not None else []
    lost: list[float] = []
    saved = []
    norms = {whole.tensor: reading.norm(whole.tensor) for whole in layout.whole}
    # peft wants all the tensors of a module that is saved, those that did not change among them.
    trained = {whole.module for whole in layout.whole if norms[whole.tensor] and whole.kind in save}
    for whole in layout.whole:
        norm = norms[whole.tensor]
        if not norm and (whole.kind not in save or whole.kind == "biases" or whole.module not in trained):
            continue
        if whole.kind == "embeddings" and ties_more(reading.base):
            left_out[whole.tensor] = "more than a head is tied to it, which no adapter can say"
            lost.append(norm)
        elif whole.kind in save:
            writer.add_whole(whole, reading.model.stored(whole.tensor), reading.model.tensors[whole.tensor])
            saved.append(whole.tensor)
        else:
            left_out[whole.tensor] = f"{whole.kind} are kept whole only where that is asked for"
            lost.append(norm)
    for name, reason in layout.left_out.items():
        norm = reading.norm(name)
        if norm:
            left_out[name] = reason
            lost.append(norm)
    if not modules:
        raise MismatchedModels(
            f"{reading.model.id} has the linear layers of {reading.base.id}: there is nothing to factorise.",
            hint="Is it a fine-tune of this base? One that trained only embeddings or norms is no LoRA.",
        )
    return Extraction(tuple(modules), tuple(saved), left_out, math.hypot(*lost), writer.parameters)


def _factorised(
    reading: "_Reading", target: Target, writer: AdapterWriter, rank: int | None, energy: float | None
) -> Extracted | None:
    """Write the factors of one module; None, and nothing written, where it did not change."""
    pairs, norms, errors = [], [], []
    for matrix in target.matrices:
        change = torch.from_numpy(reading.change(matrix)).double()
        with about(f"Module {target.module} of {reading.model.id}"):
            left, right = (factor.float() for factor in low_rank_factors(change, rank, energy))
        norms.append(float(change.norm()))
        errors.append(float((change - left.double() @ right.double()).norm()))
        pairs.append((left, right) if not target.turned else (right.T, left.T))
    if not any(norms) and not target.stacked:
        return None
    height, width = pairs[0][0].shape[0], pairs[0][1].shape[1]
    shape = (len(pairs), height, width) if target.stacked else (height, width)
    found = writer.add_factors(target, pairs)
    return Extracted(target.module, shape, found, math.hypot(*norms), math.hypot(*errors))


class _Reading:
    """Reads the task vector of ``model``, telling how far it has come."""

    def __init__(self, base: Checkpoint, model: Checkpoint, names: Sequence[str], progress: Progress | None) -> None:
        self.base, self.model = base, model
        self._progress = progress
        self._done, self._total = 0, sum(self._bytes(name, model.tensors[name].count) for name in names)

    def change(self, matrix: Matrix) -> Float32:
        """What was added to a matrix, fp32."""
        parts = [self._difference(piece.tensor, piece.first, piece.count) for piece in matrix.pieces]
        return np.concatenate(parts).reshape(matrix.shape)

    def norm(self, name: str) -> float:
        """The Frobenius norm of what was added to a tensor."""
        parts = (self._difference(name, *block) for block in self.model.blocks(name))
        return math.hypot(*(float(np.linalg.norm(part.astype(np.float64))) for part in parts))

    def _difference(self, name: str, start: int, count: int) -> Float32:
        model, base = self.model.floats(name, start, count), self.base.floats(name, start, count)
        change = model - base
        if not np.isfinite(change).all():
            raise damaged(name, self.base if np.isfinite(model).all() else self.model)
        self._done += self._bytes(name, count)
        if self._progress is not None:
            self._progress(self._done, self._total)
        return change

    def _bytes(self, name: str, count: int) -> int:
        return count * sum(each.tensors[name].dtype.itemsize for each in (self.base, self.model))
