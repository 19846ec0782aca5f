"""A merge: what it made, and what it would take."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import JsonValue

from kinship.errors import InvalidConfig, KinshipError
from service.answers.base import Answer, named
from service.answers.push import Pushed, local, push_folder, require_pushable

if TYPE_CHECKING:
    from merging.mixture.recipe import AnyRecipe


class Merged(Answer):
    """A merged model that was written."""

    schema_: Literal["kinship.merge/1"] = named("kinship.merge/1")
    out: str
    """Its folder."""
    recipe: dict[str, JsonValue]
    """What it was made by, without what was left at its default."""
    pushed: Pushed | None = None
    """Where it was uploaded, if it was."""


class MergePlan(Answer):
    """What a merge would read, write and take, as recipe and headers tell."""

    schema_: Literal["kinship.merge-plan/1"] = named("kinship.merge-plan/1")
    out: str
    """The folder that would be written."""
    models: list[str]
    """That would be read."""
    tensors: int
    """How many would be written."""
    by_method: dict[str, int]
    """How many by each method; ``copy`` for buffers of integers."""
    parameters: int
    """Of the result."""
    dtypes: list[str]
    """Of the result."""
    bytes_in: int
    """To be read; twice where inner products are taken first."""
    bytes_out: int
    """Exactly: headers and index included; with the tensors beside the weights, at most."""
    peak_memory: int
    """An estimate in bytes, beside the program."""
    disk_free: int
    """Bytes, where the folder would be."""
    recipe: dict[str, JsonValue]
    """What it would be made by."""


def merge_models(
    recipe: "AnyRecipe",
    out: Path,
    *,
    push: str | None = None,
    private: bool = False,
    seed: int = 0,
    device: str = "cpu",
    force: bool = False,
    shard_bytes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    published: Callable[[Sequence[str]], None] = lambda paths: None,
    inputs: Iterable[Path] = (),
    written: Callable[[Path], None] = lambda out: None,
    told: Callable[[str], None] = lambda text: None,
) -> Merged:
    """Merge as ``recipe`` says into the folder ``out``, and upload it to the Hub repository ``push`` if one is named.

    Before anything is read, ``published`` is told of paths of this machine that an upload will name; ``written`` is
    told of the folder once it is there, ``told`` of files that were left out and of what will be uploaded. ``inputs``:
    files that ``out`` may not replace, beside the models. ``shard_bytes``: the most that a file of weights takes.
    Raises the errors of `run_merge`, `require_pushable` and `push_folder`; of the last, the hint says that the folder
    is whole.
    """
    from merging.merge import write_merge
    from merging.output.writer import SHARD_BYTES

    _require(recipe, out, push, private, force, published, inputs)
    size = SHARD_BYTES if shard_bytes is None else shard_bytes
    write_merge(recipe, out, seed=seed, device=device, force=force, shard_bytes=size, progress=progress, told=told)
    written(out)
    if push is None:
        return Merged(out=str(out), recipe=recipe.to_dict())
    try:
        pushed = push_folder(out, push, private=private, force=force, told=told)
    except KinshipError as error:
        raise type(error)(error.message, hint=f"{error.hint} The merged model is whole, in {out}.") from error
    return Merged(out=str(out), recipe=recipe.to_dict(), pushed=pushed)


def plan_merging(
    recipe: "AnyRecipe",
    out: Path,
    *,
    push: str | None = None,
    private: bool = False,
    force: bool = False,
    shard_bytes: int | None = None,
    published: Callable[[Sequence[str]], None] = lambda paths: None,
    inputs: Iterable[Path] = (),
) -> MergePlan:
    """What `merge_models` would do, having refused what that would refuse; no weights are read."""
    from merging.merge import plan_summary, planned, require_space
    from merging.output.writer import SHARD_BYTES

    _require(recipe, out, push, private, force, published, inputs)
    with planned(recipe) as plan:
        size = SHARD_BYTES if shard_bytes is None else shard_bytes
        require_space(plan, out, size)
        return MergePlan.model_validate(plan_summary(plan, out, size))


def with_out_dtype(recipe: "AnyRecipe", dtype: str | None) -> "AnyRecipe":
    """``recipe`` with its result in ``dtype``, unless that is None; a mixture's own is replaced."""
    from merging.recipe.schema import Recipe

    if dtype is None:
        return recipe
    return recipe.model_copy(update={"out_dtype" if isinstance(recipe, Recipe) else "dtype": dtype})


def _require(
    recipe: "AnyRecipe",
    out: Path,
    push: str | None,
    private: bool,
    force: bool,
    published: Callable[[Sequence[str]], None],
    inputs: Iterable[Path],
) -> None:
    from kinship.checkpoints.references import local_places
    from kinship.output import require_writable
    from merging.output.folder import foreign_in_model

    require_writable(out, force=force, folder=foreign_in_model, inputs=[*local_places(recipe.references), *inputs])
    if push is not None:
        require_pushable(push, private=private, force=force)
        paths = local(recipe.references)
        if paths:
            published(paths)
    elif private:
        raise InvalidConfig("--private says nothing without --push.", hint="Add --push ORG/NAME.")
