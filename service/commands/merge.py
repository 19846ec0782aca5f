"""`kinship merge`."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.options import DeviceName, DTypeOption, Force, Json, ShardSize, VerifyInputs
from service.console import byte_progress, console, note, notes, print_json

if TYPE_CHECKING:
    from service.answers.merge import MergePlan


def merge(
    recipe: Annotated[Path, typer.Argument(help="Recipe in mergekit YAML.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="Folder to write.", show_default=False)],
    seed: Annotated[int, typer.Option(min=0, help="Seed of methods that draw at random.")] = 0,
    device: Annotated[DeviceName, typer.Option(help="For methods that can use it; cuda is untested.")] = "cpu",
    dtype: DTypeOption = None,
    shard_size: ShardSize = "5GB",
    push: Annotated[
        str | None, typer.Option(metavar="ORG/NAME", help="Upload the folder to this Hub repository, too.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Of --push: the repository is private.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and tell what it takes, from headers alone.")
    ] = False,
    verify_inputs: VerifyInputs = False,
    as_json: Json = False,
    force: Force = False,
) -> None:
    """Merge models as a recipe says, into a model folder."""
    from merging.mixture.recipe import load_any_recipe
    from merging.output.writer import bytes_of
    from service.answers.merge import merge_models, plan_merging, with_out_dtype

    content, shard_bytes = with_out_dtype(load_any_recipe(recipe), dtype), bytes_of(shard_size)
    if dry_run:
        plan = plan_merging(
            content,
            out,
            push=push,
            private=private,
            force=force,
            shard_bytes=shard_bytes,
            published=warn_of_paths,
            inputs=[recipe],
        )
        print_json(plan) if as_json else print_plan(plan)
        return

    def tell(folder: Path) -> None:
        stack.close()  # the bar
        if push and (as_json or not notes().is_terminal):
            from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

            disable_progress_bars()
        if not as_json:
            console().print(f"Wrote {folder}", soft_wrap=True)

    with ExitStack() as stack:
        progress = stack.enter_context(byte_progress(f"Merging ({content.merge_method})", quiet=as_json))
        answer = merge_models(
            content,
            out,
            push=push,
            private=private,
            seed=seed,
            device=device,
            force=force,
            shard_bytes=shard_bytes,
            progress=progress,
            published=warn_of_paths,
            written=tell,
            told=note,
            inputs=[recipe],
        )
    if as_json:
        print_json(answer)
    elif answer.pushed:
        console().print(f"Uploaded to {answer.pushed.url}", soft_wrap=True)


def warn_of_paths(paths: Sequence[str]) -> None:
    """Before it is too late: a recipe is published as it is, and so are the ``paths`` in it."""
    note(f"recipe, lineage and card will be uploaded and name {', '.join(paths)}.")


def print_plan(plan: "MergePlan") -> None:
    """What a merge would do, from headers alone."""
    from rich.filesize import decimal

    methods = ", ".join(f"{count} by {method}" for method, count in plan.by_method.items())
    console().print(f"{plan.tensors} tensors ({methods}), {plan.parameters:,} parameters")
    console().print(f"{decimal(plan.bytes_in)} to read of {len(plan.models)} models")
    console().print(f"{decimal(plan.bytes_out)} to write ({', '.join(plan.dtypes)})")
    console().print(f"{decimal(plan.disk_free)} free on the disk")
    console().print(f"about {decimal(plan.peak_memory)} of memory beside the program")
