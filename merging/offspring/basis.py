"""The span of founders, widened by children that lie outside it: these join it as stored weights.

A merge such as TIES is no linear combination of its parents. Its child is written to disk once, and in the same pass
over its tensors its row of the Gram table is taken, from the bytes as written. From then on it is one more member of
the basis: genomes have one more column, and all kinship and all further merges follow as within a span.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Self

from kinship.checkpoints.checkpoint import Checkpoint, ContentDigest
from kinship.checkpoints.dtypes import DType
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import MalformedCheckpoint, ReferenceNotFound
from kinship.measures import gram
from kinship.measures.gram import GramTable
from kinship.measures.gram_row import GramRow
from kinship.output import output_file, require_writable
from merging.execution.streaming import Piece, execute, peak_memory
from merging.kernels.rounding import promoted
from merging.offspring.span import Genome, Span
from merging.offspring.weights import combination
from merging.output.writer import SafetensorsFile, header_of, require_free
from merging.planning.graph import MergeNode, Same
from merging.planning.plan import TensorPlan
from merging.recipe.schema import Recipe

Progress = Callable[[int, int], None]

# Where `plan_merge` has a recipe's only part: so `kinship merge` draws the same at random from the same seed.
_PLACE = "/0"


class Absent(Checkpoint):
    """A stored child whose weights were removed: in the basis as ever, but not to be read; see `Basis.restored`."""

    def read_into(self, name: str, start: int, view: memoryview) -> None:
        """Raises `ReferenceNotFound`."""
        raise ReferenceNotFound(
            f"The weights of {self.id}, which others descend from, are not at {self.path}.",
            hint="Put the file back where the run wrote it, or start a new run.",
        )


class Child(NamedTuple):
    """A child's ``genome``, the ``basis`` that it is about, and the content ``digest`` of weights that were stored."""

    genome: Genome
    basis: "Basis"
    digest: str | None = None


@dataclass(frozen=True, eq=False)
class Basis:
    """A base, founders and stored children: what every individual of a search is a linear combination of.

    span: over all of them, with their Gram table, which is what a ledger has to keep; `open` takes it back. models:
    those, open, in its order. folder: where children are stored, as ``<id>.safetensors``. dtype: what their weights are
    rounded to, once; None for that of the members, as `kinship merge` does. A basis does not change: `add` returns a
    wider one. Genomes from before need no change: see `Genome.padded`. The table has NaN for products of a child with
    those that were `Absent` when it was made.
    """

    span: Span
    models: tuple[Checkpoint, ...]
    folder: Path
    dtype: DType | None = None

    @classmethod
    def open(cls, founders: Sequence[Checkpoint], table: GramTable, folder: Path, dtype: DType | None = None) -> Self:
        """The basis that ``table`` is about: ``founders`` (the base first) and children stored in ``folder``.

        A child that is not there any more is `Absent`. Raises the errors of `open_checkpoint`.
        """
        stored = [_open_child(folder, id, founders[0]) for id in table.rows[len(founders) :]]
        return cls(Span.over(table), (*founders, *stored), folder, dtype)

    @property
    def table(self) -> GramTable:
        """The Gram table of all members."""
        assert self.span.table is not None  # `Span.over` a table has it
        return self.span.table

    def without(self, ids: Iterable[str]) -> Self:
        """The basis after the weights of these stored children were removed from the disk."""
        gone = set(ids)
        for model in self.models:
            if model.id in gone:
                model.close()
                model.path.unlink(missing_ok=True)
        return self._opened_again(gone)

    def restored(self, id: str, recipe: Recipe, genomes: Mapping[str, Genome], *, seed: int, digest: str) -> Self:
        """The basis with the weights of a child that is `Absent` made again, as `add` made them.

        Raises `MalformedCheckpoint` where they are not those of ``digest``; nothing of them remains then.
        """
        plans = self.plan(recipe, genomes)
        with _storing(_file_of(self.folder, id), plans, execute(plans, seed=seed), force=True) as found:
            if found != digest:
                raise MalformedCheckpoint(
                    f"The weights of {id}, made again from its parents, are not what they were.",
                    hint="The run was made by another version: go on with that one, or start a new run.",
                )
        return self._opened_again({id})

    def _opened_again(self, ids: set[str]) -> Self:
        models = [_open_child(self.folder, m.id, self.models[0]) if m.id in ids else m for m in self.models]
        return replace(self, models=tuple(models))

    def close(self) -> None:
        """Close the members' files; reading opens them again."""
        for model in self.models:
            model.close()

    def merge_or_add(
        self,
        id: str,
        recipe: Recipe,
        genomes: Mapping[str, Genome],
        *,
        seed: int = 0,
        force: bool = False,
        progress: Progress | None = None,
    ) -> Child:
        """The child ``id`` of ``recipe``: by algebra where it lies in the span, else by `add`."""
        if self.span.holds(recipe.check()):
            return Child(self.span.merge(recipe, genomes), self)
        return self.add(id, recipe, genomes, seed=seed, force=force, progress=progress)

    def add(
        self,
        id: str,
        recipe: Recipe,
        genomes: Mapping[str, Genome],
        *,
        seed: int = 0,
        force: bool = False,
        progress: Progress | None = None,
    ) -> Child:
        """Make the child of ``recipe``, whose model names are keys of ``genomes``, and store its weights as ``id``.

        Its parents are taken in fp32, whatever they are stored in. The file takes its name when it is complete and on
        disk; ``force`` replaces one that is there, as a run that was killed before it took note of it wants. The same
        ``seed`` (see `child_seed`) gives the same bytes, whatever the number of threads; of members, those that
        `write_merge` writes. ``progress`` is told (bytes done, bytes in all). Cost: reads the parents' members, and all
        members once. Raises `OutputExists`, `OutputNotWritable`, and the errors of `Span.merge` and `execute`; nothing
        half-written remains.
        """
        if id in self.span.ids:
            raise ValueError(f"there is a member {id!r} already")
        path = _file_of(self.folder, id)
        require_writable(path, force=force)
        plans = self.plan(recipe, genomes)
        row = GramRow(self.table, [None if isinstance(model, Absent) else model for model in self.models])
        with _storing(path, plans, pieces(plans, row, seed), force=force, progress=progress) as digest:
            table = row.table(id)
        child = _open_child(self.folder, id, self.models[0])
        wider = replace(self, span=Span.over(table), models=(*self.models, child))
        return Child(wider.span.founder(id), wider, digest)

    def plan(self, recipe: Recipe, genomes: Mapping[str, Genome]) -> list[TensorPlan]:
        """How the child of ``recipe`` is made from the members, tensor by tensor; raises as `Span.merge`."""
        method = recipe.check().method
        (part,) = recipe.parts
        models = [str(entry.model) for entry in part.merged(method)]
        start = None if part.base is None else genomes[str(part.base)]
        plans = []
        for index, (name, values) in enumerate(zip(self.span.names, self.span.values(recipe), strict=True)):
            inputs = tuple(combination(genomes[model].coefficients[index], name, self.models) for model in models)
            stored = [model.tensors[name].dtype for model in self.models]
            if isinstance(inputs[0], Same):
                leaves = tuple(dict.fromkeys(leaf for node in inputs for leaf in node.leaves))
                plans.append(TensorPlan(name, stored[0], Same(leaves)))
            else:
                base = None if start is None else combination(start.coefficients[index], name, self.models)
                node = MergeNode(method, values, inputs, base, _PLACE)
                plans.append(TensorPlan(name, self.dtype or promoted(stored), node))
        return plans


@contextmanager
def _storing(
    path: Path, plans: Sequence[TensorPlan], made: Iterator[Piece], *, force: bool, progress: Progress | None = None
) -> Iterator[str]:
    """Write what was ``made`` and give its content digest; it takes its name, ``path``, when the block ends well."""
    specs = [plan.spec for plan in plans]
    total = sum(spec.nbytes for spec in specs)
    require_free(path, stored_bytes(plans))
    digest, done = ContentDigest(specs), 0
    with output_file(path, force=force) as partial, closing(SafetensorsFile(partial, specs, hashed=False)) as file:
        for piece in made:
            file.write(piece.tensor.name, piece.start, piece.data)
            digest.update(piece.tensor.name, piece.data.data)
            done += piece.data.nbytes
            if progress is not None:
                progress(done, total)
        file.finish()
        yield digest.hexdigest()


def pieces(plans: Sequence[TensorPlan], row: GramRow, seed: int) -> Iterator[Piece]:
    """The bytes of a child, in order, each of which ``row`` has seen."""
    return execute(plans, seed=seed, inspect=lambda plan, start, data: row.add(plan.name, start, data, plan.dtype))


def stored_bytes(plans: Sequence[TensorPlan]) -> int:
    """What a child takes on disk."""
    specs = [plan.spec for plan in plans]
    return len(header_of(specs)[0]) + sum(spec.nbytes for spec in specs)


def _file_of(folder: Path, id: str) -> Path:
    return folder / f"{id}.safetensors"


def _open_child(folder: Path, id: str, base: Checkpoint) -> Checkpoint:
    path = _file_of(folder, id)
    return open_checkpoint(path, id=id) if path.is_file() else Absent(id, path, base.tensors, {})


# So much of a child is made for the estimate of its time.
_TRIAL_BYTES = 16 << 20


@dataclass(frozen=True)
class Cost:
    """What making children takes. bytes_stored: what stays on disk. peak_memory: bytes, beside the program itself.

    seconds: from a trial on the first tensors; without waiting for the disk.
    """

    bytes_read: int
    bytes_stored: int
    peak_memory: int
    seconds: float


def cost_of_children(basis: Basis, recipe: Recipe, children: int = 1) -> Cost:
    """What ``children`` made one after another by ``recipe``, of members of ``basis``, take: nothing in its span.

    Every child is read for the kinship of those after it, so that reading grows with the square of their number. Costs
    reading some 16 MB of every member, for the trial.
    """
    if basis.span.holds(recipe.check()):
        return Cost(0, 0, 0, 0.0)
    plans = basis.plan(recipe, {id: basis.span.founder(id) for id in basis.span.ids})
    stored, merged = stored_bytes(plans), sum(plan.bytes_read for plan in plans)
    members = sum(model.tensors[plan.name].nbytes for plan in plans for model in basis.models)
    read = children * (merged + members) + children * (children - 1) // 2 * stored
    first: list[TensorPlan] = []
    size = 0
    for plan in plans:
        if plan.spec.nbytes and (size < _TRIAL_BYTES or not first):
            first.append(plan)
            size += plan.bytes_read + sum(model.tensors[plan.name].nbytes for model in basis.models)
    row, took = GramRow(basis.table, basis.models), 0.0
    for chosen in (first[:1], first):  # kernels are compiled or loaded in the first round, not timed
        started = time.perf_counter()
        for _ in pieces(chosen, row, 0):
            pass
        took = time.perf_counter() - started
    memory = peak_memory(plans) + gram.peak_memory(len(basis.models))
    return Cost(read, children * stored, memory, took / size * read if size else 0.0)
