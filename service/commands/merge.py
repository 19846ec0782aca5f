"""`kinship merge`."""

from pathlib import Path

from merging.recipe import load_recipe
from merging.run import run_merge
from service.console import console, notes, print_json


def run(recipe_file: Path, out: Path, *, as_json: bool, force: bool) -> None:
    """Merge and write."""
    recipe = load_recipe(recipe_file)
    with notes().status(f"Merging {len(recipe.models)} models ({recipe.merge_method})"):
        run_merge(recipe, out, force=force)
    if as_json:
        print_json({"schema": "kinship.merge/1", "out": str(out), "recipe": recipe.to_dict()})
    else:
        console().print(f"Wrote {out}")
