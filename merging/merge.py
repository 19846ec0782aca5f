"""One merge from its recipe to its folder: what `kinship merge` does."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinship.arrays import Float64
from kinship.checkpoints.checkpoint import Checkpoint, unchanged
from kinship.checkpoints.folder_files import front_matter
from kinship.checkpoints.opening import open_checkpoint
from kinship.checkpoints.unified import unified
from kinship.device import choose_device
from kinship.output import require_writable
from kinship.threads import worker_count
from merging.execution.streaming import execute, peak_memory
from merging.mixture.recipe import AnyRecipe
from merging.output.folder import Told, foreign_in_model, require_weights_alone, write_model_folder
from merging.output.writer import SHARD_BYTES, file_bytes, free_space, require_free
from merging.planning.graph import Spec
from merging.planning.plan import MergePlan, TensorPlan, plan_merge
from merging.recipe.schema import Recipe

Progress = Callable[[int, int], None]

# More than config, tokenizer and card of a model take.
_COMPANION_BYTES = 64 << 20


@contextmanager
def planned(recipe: AnyRecipe, seed: int = 0) -> Iterator[MergePlan]:
    """The checked plan of ``recipe``, its models open; ``seed``: of a mixture's gates, where they are drawn.

    Raises the errors of `open_checkpoint`, and of `plan_merge` or `plan_mixture`.
    """
    recipe.check()
    if isinstance(recipe, Recipe):
        for source in recipe.data_sources:
            source.require_there()
    with ExitStack() as stack:
        models = {reference: stack.enter_context(open_checkpoint(reference)) for reference in recipe.references}
        for model in models.values():
            require_weights_alone(model)
        shown, _ = unified(list(models.values()))
        models = dict(zip(models, shown, strict=True))
        if isinstance(recipe, Recipe):
            if recipe.align is not None:
                from merging.rebasin.aligned import aligned  # torch, which plain merges do without

                models = aligned(models, recipe.align)
            plan = plan_merge(recipe, models)
            if recipe.method.beside:
                from merging.beside.making import with_base_layers

                plan = with_base_layers(plan)
            yield plan
            return
        from merging.mixture.plan import plan_mixture

        yield plan_mixture(recipe, models, seed)


def write_merge(
    recipe: AnyRecipe,
    output: str | Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    force: bool = False,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
    told: Told = lambda text: None,
) -> Path:
    """Merge as ``recipe`` says and write the folder ``output``; returns it.

    seed: of the methods that draw at random. device: ``cpu``, ``cuda`` or ``auto``, for the methods that can use one;
    results on another device differ in their last bits. ``progress`` is told (bytes written, bytes in all), ``told``
    of files of the models that were left out. Raises the
    errors of `planned`, `execute` and `write_model_folder`, and `OutputNotWritable` where the disk is too small;
    nothing half-written remains.
    """
    output = Path(output)
    require_writable(output, force=force, folder=foreign_in_model)
    chosen = choose_device(device)
    with planned(recipe, seed) as checked, unchanged(checked.models), _ready(checked, seed, told) as plan:
        require_space(plan, output, shard_bytes)
        weights = _MergedWeights(plan, seed, chosen, progress)
        write_model_folder(
            output,
            weights,
            template=plan.template,
            recipe=plan.recipe,
            lineage=weights.lineage,
            parents=[model.id for model in plan.models],
            licences=licences(plan.models),
            config=plan.config,
            tokenizer=plan.tokenizer,
            files=plan.files,
            force=force,
            shard_bytes=shard_bytes,
            beside=_beside(plan, seed, chosen, told),
            told=told,
        )
    return output


@contextmanager
def _ready(plan: MergePlan, seed: int, told: Told) -> Iterator[MergePlan]:
    """The plan, with what its method wants measured; see `merging.data_driven.prepare.measured`."""
    if not plan.recipe.method.measures:
        yield plan
        return
    from merging.data_driven.prepare import measured

    with measured(plan, seed=seed, told=told) as ready:
        yield ready


def _beside(plan: MergePlan, seed: int, device: str, told: Told) -> Callable[[Path], str] | None:
    """What is to be made beside the weights, once a folder has them; None where nothing is."""
    if not _has_beside(plan):
        return None
    from merging.beside.making import make_beside

    return partial(make_beside, plan, seed=seed, device=device, told=told)


def _has_beside(plan: MergePlan) -> bool:
    recipe = plan.recipe
    return isinstance(recipe, Recipe) and bool(recipe.method.beside or recipe.surgery)


def _beside_sizes(plan: MergePlan) -> tuple[int, int]:
    """Bytes written and held for what lies beside the weights; see `merging.beside.making.beside_sizes`."""
    if not _has_beside(plan):
        return 0, 0
    from merging.beside.making import beside_sizes

    return beside_sizes(plan)


def require_space(plan: MergePlan, output: Path, shard_bytes: int = SHARD_BYTES) -> None:
    """Raise `OutputNotWritable` where the disk has no room for what the merge will write."""
    require_free(output, file_bytes(plan.specs, shard_bytes) + _beside_sizes(plan)[0] + _COMPANION_BYTES)


def plan_summary(plan: MergePlan, output: Path, shard_bytes: int = SHARD_BYTES) -> dict[str, Any]:
    """What the merge would do: the documented JSON object of ``kinship merge --dry-run``."""
    beside, held = _beside_sizes(plan)
    return {
        "schema": "kinship.merge-plan/1",
        "out": str(output),
        "models": [model.id for model in plan.models],
        "tensors": len(plan.tensors),
        "by_method": plan.by_method,
        "parameters": sum(spec.size for spec in plan.specs),
        "dtypes": sorted({spec.dtype.name for spec in plan.specs}),
        "bytes_in": plan.bytes_read,
        "bytes_out": file_bytes(plan.specs, shard_bytes) + beside,
        "peak_memory": max(peak_memory(plan.tensors), held),
        "disk_free": free_space(output),
        "recipe": plan.recipe.to_dict(),
    }


@dataclass
class _MergedWeights:
    """The weights of a merge in the making, and what is to be remembered of it."""

    plan: MergePlan
    seed: int
    device: str
    progress: Progress | None
    coefficients: dict[str, list[float]] = field(default_factory=dict)

    @property
    def specs(self) -> Sequence[Spec]:
        """Names, dtypes and shapes."""
        return self.plan.specs

    def pieces(self) -> Iterator[tuple[str, int, NDArray[np.uint8]]]:
        """All bytes, in order."""
        done, total = 0, self.plan.bytes_written
        pieces = execute(
            self.plan.tensors,
            rounding=self.plan.rounding,
            seed=self.seed,
            observer=self._remember,
            device=self.device,
            statistics=self.plan.statistics,
        )
        for tensor, start, _, data in pieces:
            yield tensor.name, start, data
            done += data.nbytes
            if self.progress is not None:
                self.progress(done, total)

    def lineage(self) -> dict[str, Any]:
        """``lineage.json``: the parents by content, the recipe, and what weights decided in it."""
        models = self.plan.models
        with ThreadPoolExecutor(worker_count()) as pool:
            digests = list(pool.map(lambda model: model.digest, models))
        for model in models:  # before the folder takes its name
            model.require_unchanged()
        parents = [{"model": model.id, "digest": digest} for model, digest in zip(models, digests, strict=True)]
        found: dict[str, Any] = {
            "schema": "kinship.lineage/2",
            "parents": parents,
            "recipe": self.plan.recipe.to_dict(),
        }
        if any(tensor.is_random for tensor in self.plan.tensors):
            found["seed"] = self.seed
        return found | ({"coefficients": self.coefficients} if self.coefficients else {})

    def _remember(self, tensor: TensorPlan, factors: Float64) -> None:
        """Where a cosine decides between arc and line, a replay could flip; so the coefficients are kept."""
        models = self.plan.models
        row = np.zeros(len(models))
        for leaf, factor in zip(tensor.node.leaves, factors, strict=True):
            row[models.index(leaf.model)] += factor
        self.coefficients[tensor.name] = row.tolist()


def licences(models: Sequence[Checkpoint]) -> dict[str, str]:
    """What the cards of the models say of their licence, by id."""
    found = {}
    for model in models:
        licence = front_matter(model.path).get("license") if model.path.is_dir() else None
        if isinstance(licence, str):
            found[model.id] = licence
    return found
