"""What coefficient searches vary: named numbers, and the recipe that they stand for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from kinship.checkpoints.module_kinds import module_kind
from kinship.checkpoints.tensor_names import layer_index
from merging.recipe.parameters import Filtered, value_at
from merging.recipe.schema import Recipe, Setting
from merging.registry import MergeMethod, get_method
from search.strategies.base import Context
from search.strategies.recipes import recipe_of
from search.strategies.settings import MergeSettings, StrategySettings
from search.strategies.span_points import BY_WEIGHTS, DECIMALS

Values = Mapping[str, float]
Groups = Mapping[str, Sequence[str]]  # label -> the substrings of names that tell its tensors

# Parameters of merge methods that are varied, and between what: weight is a share, density a part of the entries kept.
_BOUNDS = {"weight": (0.0, 1.0), "density": (0.1, 1.0), "t": (0.0, 1.0)}
_PAIR = "pair"
_MLP = ("mlp", "experts", "shared experts", "router")


@dataclass(frozen=True)
class Space:
    """The numbers that make a merge of ``founders`` by ``method``: ``bounds`` by name.

    Each parameter of `_BOUNDS` that the method has is varied by model where the method takes it by model, and by group
    of tensors where ``groups`` has several; so is the scale of the sum of task vectors, where the method knows one.
    Weights are shares: divided by their sum in each group, for linear and task_arithmetic. Methods of two models vary
    which two. Other parameters stay as ``fixed`` says. What the run's merge settings say of a varied one has no effect.
    """

    method: MergeMethod
    founders: tuple[str, ...]
    names: tuple[str, ...]
    groups: Groups
    scale_range: tuple[float, float]
    fixed: Mapping[str, Setting]

    @classmethod
    def of(cls, settings: StrategySettings, merge: MergeSettings, context: Context) -> "Space":
        """The space that a run's settings speak of. Averages are written as the task arithmetic that they are."""
        by_weights = merge.method in BY_WEIGHTS
        method = get_method("task_arithmetic" if by_weights else merge.method)
        varied = {*_BOUNDS, "lambda", "scale"}
        fixed = {} if by_weights else {key: value for key, value in merge.parameters.items() if key not in varied}
        groups = tensor_groups(context.names, settings.coefficients, settings.layer_groups)
        founders = tuple(founder.id for founder in context.founders)
        return cls(method, founders, context.names, groups, settings.scale_range, fixed)

    @property
    def by_weights(self) -> bool:
        """Whether a point is nothing but weights and a scale, so that founders and averages are points too."""
        return self.method.name in BY_WEIGHTS

    @property
    def bounds(self) -> dict[str, tuple[float, float]]:
        """The least and largest of each number."""
        found = {_PAIR: (0.0, 1.0)} if self._pairs else {}
        for group in self.groups:
            for name, bounds in self._varied.items():
                owners = self.founders if self._by_model(name) and not self._pairs else ("",)
                found |= {_key(name, owner, group): bounds for owner in owners}
        return found

    def recipe(self, values: Values) -> Recipe:
        """The merge that ``values`` stand for."""
        models = self._chosen(values)
        own: dict[str, dict[str, Setting]] = {model: {} for model in models}
        common: dict[str, Setting] = dict(self.fixed)
        if self.by_weights:
            shares = {group: self._shares(values, group) for group in self.groups}
            for model in models:
                own[model]["weight"] = self._setting({group: share[model] for group, share in shares.items()})
            used = [model for model in models if own[model]["weight"] != 0.0] or list(models[:1])
            return recipe_of(self.method, [(model, own[model]) for model in used], common)
        for name in self._varied:
            if self._by_model(name) and not self._pairs:
                for model in models:
                    own[model][name] = self._setting({group: values[_key(name, model, group)] for group in self.groups})
            else:
                common[name] = self._setting({group: values[_key(name, "", group)] for group in self.groups})
        if self._pairs and any(parameter.name == "weight" for parameter in self.method.parameters):
            common.setdefault("weight", 1.0)
        return recipe_of(self.method, [(model, own[model]) for model in models], common)

    def values_of(self, weights: Mapping[str, float], scale: float) -> dict[str, float] | None:
        """The numbers of a weighted average, stretched by ``scale``; None where this space has no such point."""
        low, high = self.scale_range
        if not self.by_weights or not low <= scale <= high:
            return None
        found = {}
        for group in self.groups:
            found[_key("lambda", "", group)] = scale
            found |= {_key("weight", id, group): weights.get(id, 0.0) for id in self.founders}
        return found

    @property
    def _pairs(self) -> bool:
        return self.method.max_models == 2

    @property
    def _varied(self) -> dict[str, tuple[float, float]]:
        known = {parameter.name for parameter in self.method.parameters}
        found = {
            name: bounds for name, bounds in _BOUNDS.items() if name in known and not (self._pairs and name != "t")
        }
        return found | {name: self.scale_range for name in ("lambda", "scale") if name in known}

    def _by_model(self, name: str) -> bool:
        return self.method.parameter(name).per_model

    def _chosen(self, values: Values) -> tuple[str, ...]:
        if not self._pairs:
            return self.founders
        pairs = list(combinations(self.founders, 2))
        return pairs[min(int(values[_PAIR] * len(pairs)), len(pairs) - 1)]

    def _shares(self, values: Values, group: str) -> dict[str, float]:
        weights = {id: values[_key("weight", id, group)] for id in self.founders}
        total, scale = sum(weights.values()), values[_key("lambda", "", group)]
        if total <= 0.0:
            return dict.fromkeys(self.founders, scale / len(self.founders))
        return {id: scale * weight / total for id, weight in weights.items()}

    def _setting(self, values: Mapping[str, float]) -> Setting:
        return group_setting({group: round(value, DECIMALS) for group, value in values.items()}, self.groups)


def tensor_groups(names: Sequence[str], by: str, layer_groups: int) -> dict[str, tuple[str, ...]]:
    """Groups of tensors by label, each with substrings that, longest first, tell its tensors from all others.

    by: "model" (one group), "layers" (``layer_groups`` runs of layers; what lies before the layers goes with the first
    run, what follows them with the last) or "modules" (attention, mlp, the rest).

    >>> tensor_groups(["h.0.attn.q", "h.1.attn.q", "wte"], "layers", 2)
    {'layers 1': ('h.0.attn.q', 'wte'), 'layers 2': ('h.1.attn.q',)}
    """
    layers = 1 + max((index for name in names if (index := layer_index(name)) is not None), default=0)
    count = min(layer_groups, layers)
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        index, kind = layer_index(name), module_kind(name)
        if by == "layers":
            place = (0 if kind == "embeddings" else layers - 1) if index is None else index
            label = f"layers {1 + place * count // layers}"
        elif by == "modules":
            label = "attention" if "attention" in kind else "mlp" if kind in _MLP else "rest"
        else:
            label = "all"
        found.setdefault(label, []).append(name)
    return {label: tuple(members) for label, members in sorted(found.items())}


def group_setting(values: Mapping[str, float], groups: Groups) -> Setting:
    """One parameter's setting with the value of each group for its tensors."""
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    # Filters are substrings and the first match wins, so a longer name must come before any part of it.
    pairs = sorted(
        ((name, values[group]) for group, names in groups.items() for name in names),
        key=lambda pair: (-len(pair[0]), pair[0]),
    )
    setting: Setting = [Filtered(filter=name, value=value) for name, value in pairs]
    assert all(value_at(setting, name, 0.0) == value for name, value in pairs)
    return setting


def _key(name: str, model: str, group: str) -> str:
    return " ".join(part for part in (name, model, "" if group == "all" else group) if part)
