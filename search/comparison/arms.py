"""The arms of a comparison: each is one way to weights, told apart by everything that decides them."""

import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from kinship.errors import InvalidConfig
from merging.recipe.schema import Recipe, parse_recipe
from merging.registry import MergeMethod, get_method
from search.comparison.plan import ComparisonPlan, Value

Kind = Literal["model", "merge", "random_vector"]
Values = tuple[tuple[str, Value | tuple[float, ...]], ...]

AVERAGE = "linear"


@dataclass(frozen=True)
class Arm:
    """One way to weights.

    kind: a model as it is, a merge, or the control of random task vectors. models: references, in the plan's order.
    method: the entry of the plan whose parameters are used; empty for the average. values: parameters that replace the
    entry's. seed: of what is drawn; 0 where nothing is.
    """

    kind: Kind
    models: tuple[str, ...]
    method: str = ""
    values: Values = ()
    seed: int = 0

    def recipe(self, plan: ComparisonPlan, statistics: str | None = None) -> Recipe:
        """What a merge is made by; ``statistics``: where what models are measured for is kept.

        Raises `InvalidConfig` where the method does not take these models or parameters.
        """
        method = get_method(plan.method_of(self.method) if self.method else AVERAGE)
        own = dict(plan.methods[self.method].parameters) if self.method else {}
        parameters: dict[str, Any] = _defaults(method) | own | dict(self.values)
        content: dict[str, Any] = {
            "merge_method": method.name,
            "models": [{"model": model} | _data_of(plan, model, method) for model in self.models],
        }
        if parameters:
            content["parameters"] = parameters
        if method.base in {"needed", "optional"} or parameters.get("scale", 1.0) != 1.0:
            content["base_model"] = plan.base
        if plan.frame is not None:  # weights are all that is wanted of the merge
            content |= {
                "chat_template": "auto",
                "generation_config": self.models[0],
                "tokenizer_source": self.models[0],
            }
        if method.measures:
            settings = plan.data.model_dump(exclude_defaults=True)
            content["data"] = settings | ({"statistics": statistics} if statistics else {})
        try:
            return parse_recipe(content)
        except InvalidConfig as error:
            raise InvalidConfig(
                f"{self.method or AVERAGE} cannot be compared: {error.message}",
                hint=error.hint or "Leave it out of the plan's methods.",
            ) from None

    def key(self, plan: ComparisonPlan, digests: Mapping[str, str]) -> str:
        """sha256 of what decides the weights: models and documents by content (``digests``), not by where they lie."""
        facts: list[Any] = [self.kind, [digests[model] for model in self.models], self.seed]
        if self.kind != "model":
            facts.append(digests[plan.base])
        if self.kind == "merge":
            recipe = self.recipe(plan).to_dict()
            everyones = plan.data.file or ""
            documents = [
                digests.get(cell.data or everyones) for cell in plan.cells.values() if cell.model in self.models
            ]
            data = recipe.get("data")
            data = data and {key: value for key, value in data.items() if key != "file"}
            facts += [recipe["merge_method"], recipe.get("parameters"), data, documents]
            facts += ["experts"] if get_method(recipe["merge_method"]).beside else []  # once scored without them
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def draws(method: MergeMethod) -> bool:
    """Whether a seed decides what it gives."""
    return method.random or method.measures == "fisher"


def whole(plan: ComparisonPlan, name: str, seed: int, values: Mapping[str, Value] | None = None) -> Arm:
    """The arm of the entry ``name`` that merges all specialists; of values that are its own already nothing is said."""
    own = plan.methods[name].parameters
    given = {key: value for key, value in (values or {}).items() if own.get(key) != value}
    return Arm("merge", specialists(plan), name, _frozen(given), seed if draws(_method(plan, name)) else 0)


def grid(plan: ComparisonPlan, name: str, seed: int) -> list[Arm]:
    """The arms that a method is tuned over: all combinations of the values to tune, the untuned one first."""
    tune = plan.methods[name].tune
    points = [dict(zip(tune, values, strict=True)) for values in product(*tune.values())] if tune else []
    return list(dict.fromkeys([whole(plan, name, seed), *(whole(plan, name, seed, point) for point in points)]))


def sweeps(plan: ComparisonPlan, name: str) -> dict[str, list[tuple[Value, Arm]]]:
    """By parameter its values with their arms, one parameter changed at a time, by the first seed."""
    settings = plan.methods[name]
    found = {}
    for parameter in dict.fromkeys([*settings.tune, *settings.sweep]):
        values = [*settings.tune.get(parameter, []), *settings.sweep.get(parameter, [])]
        distinct = sorted({json.dumps(value): value for value in values}.values(), key=_order)
        found[parameter] = [(value, whole(plan, name, plan.seeds[0], {parameter: value})) for value in distinct]
    return found


def prefixes(plan: ComparisonPlan) -> Iterator[tuple[str, int, Arm]]:
    """(method, number of the order, arm) for the beginnings of every random order of the specialists."""
    everyone = specialists(plan)
    for number in range(plan.number.orders):
        order = random.Random(f"{plan.order_seed}/{number}").sample(everyone, len(everyone))
        for name in plan.number.methods:
            method = _method(plan, name)
            for count in range(1, len(order) + 1):
                chosen = tuple(model for model in everyone if model in order[:count])
                seed = plan.seeds[0] if draws(method) else 0
                yield name, number, Arm("merge", chosen, name, (), seed)


def controls(plan: ComparisonPlan, seed: int) -> dict[str, Arm]:
    """The controls by what they are called."""
    found = {}
    if "random_vector" in plan.controls:
        found["random task vectors"] = Arm("random_vector", specialists(plan), seed=seed)
    for name, cell in plan.cells.items():
        if cell.model and cell.same_data:
            found[f"same data ({name})"] = Arm("merge", (cell.model, cell.same_data))
    return found


def baselines(plan: ComparisonPlan) -> dict[str, Arm]:
    """Base and multitask model as they are, by what they are called."""
    found = {"base": Arm("model", (plan.base,))}
    if plan.multitask:
        found["multitask"] = Arm("model", (plan.multitask,))
    return found


def by_cell(plan: ComparisonPlan) -> dict[str, Arm]:
    """Each specialist as it is, by its cell, which may be called as it likes."""
    return {name: Arm("model", (cell.model,)) for name, cell in plan.cells.items() if cell.model}


def specialists(plan: ComparisonPlan) -> tuple[str, ...]:
    """References of the specialists, in the order of their cells; one of several cells once."""
    return tuple(dict.fromkeys(cell.model for cell in plan.cells.values() if cell.model))


def every_arm(plan: ComparisonPlan) -> list[Arm]:
    """All arms, each once, in the order in which they are done: what tells most comes first."""
    found: list[Arm] = [*baselines(plan).values(), *by_cell(plan).values()]
    for seed in plan.seeds:
        found += controls(plan, seed).values()
        found += (whole(plan, name, seed) for name in plan.methods)
    for seed in plan.seeds:
        found += (arm for name in plan.methods for arm in grid(plan, name, seed))
    found += (arm for name in plan.methods for points in sweeps(plan, name).values() for _, arm in points)
    found += (arm for _, _, arm in prefixes(plan))
    return list(dict.fromkeys(found))


def _method(plan: ComparisonPlan, name: str) -> MergeMethod:
    return get_method(plan.method_of(name))


def _defaults(method: MergeMethod) -> dict[str, Any]:
    """Every model counts alike where a method wants to be told."""
    return {
        parameter.name: 1.0
        for parameter in method.parameters
        if parameter.name == "weight" and parameter.default is None
    }


def _data_of(plan: ComparisonPlan, model: str, method: MergeMethod) -> dict[str, Any]:
    """The documents of its cell, where the method sees data."""
    if not method.measures:
        return {}
    files = [cell.data for cell in plan.cells.values() if cell.model == model and cell.data]
    return {"data": {"file": files[0], "field": plan.data.field}} if files else {}


def _frozen(values: Mapping[str, Value]) -> Values:
    return tuple((key, tuple(value) if isinstance(value, list) else value) for key, value in sorted(values.items()))


def _order(value: Value) -> Any:
    return value if isinstance(value, list) else [float(value)]
