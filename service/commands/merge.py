"""`kinship merge`."""

from pathlib import Path
from typing import Any

from rich.filesize import decimal
from rich.markup import escape

from kinship.errors import InvalidConfig, KinshipError
from kinship.output import require_writable
from merging.merge import plan_summary, planned, require_space, write_merge
from merging.recipe.schema import Recipe, load_recipe
from service.answers.push import Pushed, local, push_folder, require_pushable
from service.console import byte_progress, console, notes, print_json


def run(
    recipe_file: Path,
    out: Path,
    push: str | None = None,
    *,
    private: bool,
    seed: int,
    device: str,
    dry_run: bool,
    as_json: bool,
    force: bool,
) -> None:
    """Merge and write, and upload to the repository ``push``; or tell what that would take."""
    recipe = load_recipe(recipe_file)
    require_writable(out, force=force)
    if push is not None:
        require_pushable(push, private=private, force=force)
        warn_of_paths(recipe)
    elif private:
        raise InvalidConfig("--private says nothing without --push.", hint="Add --push ORG/NAME.")
    if dry_run:
        with planned(recipe) as plan:
            require_space(plan, out)
            print_plan(plan_summary(plan, out), as_json=as_json)
        return
    with byte_progress(f"Merging ({recipe.merge_method})", quiet=as_json) as progress:
        write_merge(recipe, out, seed=seed, device=device, force=force, progress=progress)
    if not as_json:
        console().print(f"Wrote {out}", soft_wrap=True)
    pushed = upload(out, push, private=private, force=force, quiet=as_json) if push is not None else None
    if as_json:
        found = {"schema": "kinship.merge/1", "out": str(out), "recipe": recipe.to_dict()}
        print_json(found | ({"pushed": pushed.to_dict()} if pushed else {}))
    elif pushed:
        console().print(f"Uploaded to {pushed.url}", soft_wrap=True)


def upload(out: Path, repo: str, *, private: bool, force: bool, quiet: bool) -> Pushed:
    """Push the folder ``out``; an error says that it is still there."""
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    if quiet or not notes().is_terminal:
        disable_progress_bars()
    try:
        return push_folder(out, repo, private=private, force=force)
    except KinshipError as error:
        raise type(error)(error.message, hint=f"{error.hint} The merged model is whole, in {out}.") from error


def warn_of_paths(recipe: Recipe) -> None:
    """Before it is too late: a recipe is published as it is, and so are the paths in it."""
    found = local(recipe.references)
    if found:
        shown = ", ".join(map(escape, found))
        notes().print(f"[yellow]Note:[/] recipe, lineage and card will be uploaded and name {shown}.", soft_wrap=True)


def print_plan(plan: dict[str, Any], *, as_json: bool) -> None:
    """What a merge would do, from headers alone."""
    if as_json:
        print_json(plan)
        return
    methods = ", ".join(f"{count} by {method}" for method, count in plan["by_method"].items())
    console().print(f"{plan['tensors']} tensors ({methods}), {plan['parameters']:,} parameters")
    console().print(f"{decimal(plan['bytes_in'])} to read of {len(plan['models'])} models")
    console().print(f"{decimal(plan['bytes_out'])} to write ({', '.join(plan['dtypes'])})")
    console().print(f"{decimal(plan['disk_free'])} free on the disk")
    console().print(f"about {decimal(plan['peak_memory'])} of memory beside the program")
