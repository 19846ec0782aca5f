"""`kinship merge`."""

from pathlib import Path
from typing import Any

from rich.filesize import decimal

from kinship.output import require_writable
from merging.recipe import load_recipe
from merging.run import describe, planned, require_space, run_merge
from service.console import byte_progress, console, print_json


def run(recipe_file: Path, out: Path, *, seed: int, dry_run: bool, as_json: bool, force: bool) -> None:
    """Merge and write, or tell what that would take."""
    recipe = load_recipe(recipe_file)
    require_writable(out, force=force)
    if dry_run:
        with planned(recipe) as plan:
            require_space(plan, out)
            print_plan(describe(plan, out), as_json=as_json)
        return
    with byte_progress(f"Merging ({recipe.merge_method})", quiet=as_json) as progress:
        run_merge(recipe, out, seed=seed, force=force, progress=progress)
    if as_json:
        print_json({"schema": "kinship.merge/1", "out": str(out), "recipe": recipe.to_dict()})
    else:
        console().print(f"Wrote {out}", soft_wrap=True)


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
