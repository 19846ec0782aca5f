"""Recipes inside recipes as several documents of one YAML file that name each other, as mergekit-multi reads them.

All here is plain data: a recipe is a mapping with ``merge_method``, wherever a model may stand.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

from kinship.errors import InvalidConfig

_MODEL_KEYS = ("model", "base_model")
_BETWEEN = {"dtype": "float32"}  # in which we keep what lies between; mergekit has to be told

MOST_MERGES, DEEPEST = 1000, 50


class TooManyMerges(InvalidConfig):
    """Recipes inside recipes that are more merges than anybody could carry out."""


class Extent(NamedTuple):
    """How many ``merges`` a recipe is, each written out wherever it is needed, and how many of them in one another."""

    merges: int
    depth: int

    @classmethod
    def of(cls, inside: Iterable["Extent"]) -> "Extent":
        """That of a recipe from those of the recipes that stand in it, each as often as it does."""
        extents = list(inside)
        return cls(1 + sum(one.merges for one in extents), 1 + max((one.depth for one in extents), default=0))

    def require(self, what: str, hint: str) -> None:
        """Raise `TooManyMerges` beyond `MOST_MERGES` or `DEEPEST`.

        Who is two others' parent counts twice: thirty short documents can be a billion merges.
        """
        if self.merges > MOST_MERGES or self.depth > DEEPEST:
            merges = f"more than {MOST_MERGES:,}" if self.merges > MOST_MERGES else str(self.merges)
            raise TooManyMerges(
                f"{what} is {merges} merges written out, {self.depth} in one another; at most {MOST_MERGES:,}, "
                f"{DEEPEST} in one another, were expected.",
                hint=hint,
            )


def as_reference(value: Any) -> Any:
    """A model written as a mapping, ours (path, revision, adapter) or mergekit's (model, lora), as one text."""
    if not isinstance(value, Mapping) or "merge_method" in value:
        return value
    if value.keys() <= {"model", "lora"} and "model" in value:
        value = {"path": value["model"], "adapter": value.get("lora")}
    if "path" not in value or not value.keys() <= {"path", "revision", "adapter"}:
        return value
    path, revision, adapter = (as_reference(value.get(key)) for key in ("path", "revision", "adapter"))
    return f"{path}{f'@{revision}' if revision else ''}{f'+{adapter}' if adapter else ''}"


def with_models(content: Any, change: Callable[[Any], Any]) -> Any:
    """A recipe, or a part of one, with every model in it replaced by what ``change`` makes of it."""
    if isinstance(content, list):
        return [with_models(item, change) for item in content]
    if not isinstance(content, Mapping):
        return content
    return {key: change(value) if key in _MODEL_KEYS else with_models(value, change) for key, value in content.items()}


def models_of(content: Any) -> list[Any]:
    """The models of a recipe, each as often as it stands there; not those of the recipes among them."""
    found: list[Any] = []
    with_models(content, found.append)
    return found


def separate(recipe: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The recipes inside ``recipe``, each once and what is needed first, then itself; each names those before it.

    >>> inner = {"merge_method": "linear", "models": [{"model": "a"}, {"model": "b"}]}
    >>> for step in separate({"merge_method": "slerp", "models": [{"model": inner}, {"model": "c"}]}):
    ...     print(step)
    {'name': 'step-1', 'merge_method': 'linear', 'models': [{'model': 'a'}, {'model': 'b'}], 'dtype': 'float32'}
    {'merge_method': 'slerp', 'models': [{'model': 'step-1'}, {'model': 'c'}]}
    """
    steps: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    taken = _references(recipe)

    def name_of(inner: Mapping[str, Any]) -> str:
        content = document(inner)
        key = json.dumps(content, sort_keys=True)
        if key not in names:
            wanted = inner.get("name")
            free = (
                wanted
                if wanted and wanted not in taken
                else next(n for n in map("step-{}".format, count(1)) if n not in taken)
            )
            names[key] = free
            taken.add(free)
            steps.append({"name": free} | content | _BETWEEN)
        return names[key]

    def document(outer: Mapping[str, Any]) -> dict[str, Any]:
        plain = {key: value for key, value in outer.items() if key != "name"}
        found: dict[str, Any] = with_models(plain, lambda model: name_of(model) if _is_recipe(model) else model)
        return found

    last = document(recipe)
    return [*steps, last]


def united(documents: Sequence[object], source: str) -> dict[str, Any]:
    """The one recipe that ``documents`` make together, what they name put inside it: the opposite of `separate`.

    The merge is the document that no other names. Raises `InvalidConfig` where there are several of these or none,
    where two have one name, and for one that is needed by others and kept in another dtype than float32;
    `TooManyMerges`.
    """
    recipes = [dict(document) for document in documents if isinstance(document, Mapping)]
    if len(recipes) < len(documents):
        raise InvalidConfig(
            f"{source}: one of its documents is no mapping.", hint="Separate merges, not parts of one, by ---."
        )
    by_name: dict[str, dict[str, Any]] = {}
    for recipe in recipes:
        name = recipe.get("name")
        if isinstance(name, str) and by_name.setdefault(name, recipe) is not recipe:
            raise InvalidConfig(f"{source} has two merges called {name!r}.", hint="Give each a name of its own.")
    used = {name for recipe in recipes for name in _references(recipe) if name in by_name}
    last = [recipe for recipe in recipes if recipe.get("name") not in used]
    if len(last) != 1:
        shown = ", ".join(str(recipe.get("name", "one without a name")) for recipe in last) or "none"
        raise InvalidConfig(
            f"{source} has several merges; one that no other names was expected, found: {shown}.",
            hint="Name the others as models of it; merges that have nothing to do with each other need a file each.",
        )

    known: dict[str, Extent] = {}

    def extent(recipe: Any, path: tuple[str, ...]) -> Extent:
        if len(path) > DEEPEST:
            Extent(len(path), len(path)).require(source, _IN_STEPS)
        found = []
        for model in models_of(recipe):
            if isinstance(model, str) and model in by_name:
                if model in path:
                    raise InvalidConfig(f"{source}: the merge {model!r} needs itself, by {' and '.join(path)}.")
                if model not in known:
                    known[model] = extent(by_name[model], (*path, model))
                found.append(known[model])
            elif _is_recipe(model):
                found.append(extent(model, path))
        return Extent.of(found)

    extent(last[0], ()).require(source, _IN_STEPS)

    def inside(model: Any) -> Any:
        if not isinstance(model, str) or model not in by_name:
            return with_models(model, inside) if _is_recipe(model) else model
        step = by_name[model]
        kept = {step.get("dtype", "float32"), step.get("out_dtype", "float32")} - {"float32"}
        if kept:
            raise InvalidConfig(
                f"{source}: {model!r}, which another merge needs, is to be kept in {kept.pop()}.",
                hint="What lies between is kept in float32: leave dtype out there.",
            )
        content = {key: value for key, value in step.items() if key not in ("name", "dtype", "out_dtype")}
        return with_models(content, inside)

    whole: dict[str, Any] = with_models(last[0], inside)
    return {key: value for key, value in whole.items() if key != "name"}


_IN_STEPS = "Merge what many others need first, into a folder of its own, and name that."


def _is_recipe(model: Any) -> bool:
    return isinstance(model, Mapping) and "merge_method" in model


def _references(recipe: Any) -> set[str]:
    models = models_of(recipe)
    found = {model for model in models if isinstance(model, str)}
    return found.union(*(_references(model) for model in models if _is_recipe(model)))


def as_task_arithmetic(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A scaled average, ``base + s (mean - base)``, said as ``base + lambda * normalised sum of task vectors``."""

    def renamed(holder: Mapping[str, Any]) -> dict[str, Any]:
        found = dict(holder)
        if "parameters" in holder:
            found["parameters"] = {"lambda" if key == "scale" else key: v for key, v in holder["parameters"].items()}
        if "slices" in holder:
            found["slices"] = [renamed(part) for part in holder["slices"]]
        if "modules" in holder:
            found["modules"] = {name: renamed(module) for name, module in holder["modules"].items()}
        return found

    found = renamed(recipe) | {"merge_method": "task_arithmetic"}
    return found | {"parameters": {"normalize": True} | found.get("parameters", {})}
