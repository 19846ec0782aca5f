"""Which strategy a run follows: the ``strategy`` part of a run file."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from kinship.errors import InvalidConfig
from kinship.validation import Strict, nearest
from merging.recipe.parameters import check_setting
from merging.recipe.schema import Setting
from merging.registry import MergeMethod, get_method, methods

Resolved = Literal["topk", "pairs", "random", "soup", "optuna", "bayesian", "niches", "average", "swarm"]
Name = Literal[Resolved, "auto"]

LARGEST_SCALE = 1000

# Keys that only some strategies know; the others are known to all.
_KEYS: dict[str, set[str]] = {
    "topk": {"variant", "partner_pool", "scale_steps"},
    "pairs": {"scale_steps"},
    "random": {"batch", "coefficients", "layer_groups", "scale_range"},
    "soup": {"scale_steps"},
    "optuna": {"batch", "sampler", "objectives", "coefficients", "layer_groups", "scale_range"},
    "bayesian": {"batch", "kernel", "objectives", "scale_range"},
    "niches": {"batch", "archive", "competition", "attraction"},
    "average": set(),
    "swarm": {"particles", "inertia", "cognitive", "social", "repel", "patience"},
    "auto": {"batch", "kernel", "scale_range"},
}


class StrategySettings(Strict):
    """How the search goes about it."""

    name: Name = Field(
        "auto",
        description="auto: what served best in our measurements (bayesian; for merges other than by weights, topk); "
        "topk: greedy merging of the best pairs (Hu et al., arXiv 2410.12613v3, Algorithm 1), meant where there is a "
        "variant and no name; pairs: every pair of founders once; random: random weights; soup: greedy soup; optuna: "
        "merge coefficients by one of Optuna's samplers; bayesian: merge coefficients by a Gaussian process over the "
        "founders' span; niches: an archive whose members share what a document is worth (M2N2, arXiv 2508.16204); "
        "average: the average of all founders at 11 scales; swarm: particles in the founders' span (Model Swarms, "
        "arXiv 2410.11163)",
    )
    k: int = Field(3, ge=2, description="how many of the best models count as the top")
    metric: Literal["pcc", "cosine", "euclidean"] = Field("pcc", description="kinship metric")
    variant: Literal["vanilla", "kinship", "random", "complementary"] = Field(
        "kinship",
        description="topk: vanilla merges the pairs of the top k; kinship adds the best model with its least related "
        "partner; complementary, with the partner that is right most often where it is wrong; random, with any "
        "partner: the control that tells whether kinship helped",
    )
    partner_pool: Literal["previous", "all", "outside"] = Field(
        "previous",
        description="topk: where the added partner comes from: the generation before the best models' (as the paper's "
        "runs did), all models, or all outside the top k; all models, where the best has met everybody in it",
    )
    scale_steps: int = Field(
        0,
        ge=0,
        le=1000,
        description="topk, pairs, soup: evaluations spent at the end on the scale of the winner's task vector",
    )
    batch: int = Field(
        4, ge=1, le=10_000, description="random, optuna, bayesian, niches, auto: merges proposed at a time"
    )
    sampler: Literal["tpe", "gp", "cmaes", "nsga2", "nsga3", "random"] = Field("tpe", description="optuna: its sampler")
    objectives: Literal["score", "tasks"] = Field(
        "score", description="optuna, bayesian: improve the score, or all tasks at once (a Pareto front)"
    )
    coefficients: Literal["model", "layers", "modules"] = Field(
        "model",
        description="optuna, random: one set of coefficients for the whole model, one for each group of layers, or one "
        "for each kind of module (attention, mlp, the rest)",
    )
    layer_groups: int = Field(2, ge=1, description="coefficients: layers: into how many groups of layers")
    scale_range: tuple[float, float] = Field(
        (0.0, 3.0),
        description="random, optuna, bayesian, auto: bounds of the scale of the sum of task vectors, from -1000 to "
        "1000",
    )
    archive: int = Field(20, ge=2, le=10_000, description="niches: how many may stay")
    competition: float = Field(
        1.0,
        ge=0,
        le=100,
        description="niches: how much less a document is worth for being right for many; 0: not at all",
    )
    attraction: bool = Field(
        True, description="niches: partners are drawn by where they are right and the first is wrong, not evenly"
    )
    particles: int = Field(
        8, ge=2, le=10_000, description="swarm: how many there are at least; as many as founders, where these are more"
    )
    inertia: float = Field(0.2, ge=0, le=100, description="swarm: weight of a particle's velocity before")
    cognitive: float = Field(0.3, ge=0, le=100, description="swarm: weight of the way to its own best place")
    social: float = Field(0.4, ge=0, le=100, description="swarm: weight of the way to the best place of all")
    repel: float = Field(0.05, ge=0, le=100, description="swarm: weight of the way from the worst place of all")
    patience: int = Field(5, ge=1, le=10_000, description="swarm: steps without a better place after which it ends")
    kernel: Literal["coefficients", "kinship"] = Field(
        "coefficients",
        description="bayesian, auto: scores are alike where the coefficients are alike, or where the merged models' "
        "task vectors are near each other",
    )

    @model_validator(mode="before")
    @classmethod
    def _name_from_variant(cls, content: Any) -> Any:
        """A name alone will do; who gives none but says which partners meet speaks of Top-k greedy merging."""
        if isinstance(content, str):
            return {"name": content}
        if isinstance(content, dict) and "name" not in content and content.keys() & _KEYS["topk"]:
            return {"name": "topk", **content}
        return content

    @model_validator(mode="after")
    def _check(self) -> Self:
        own = _KEYS[self.name]
        for key in sorted(set().union(*_KEYS.values()) - own):
            if getattr(self, key) != type(self).model_fields[key].default:
                fit = ", ".join(name for name, keys in _KEYS.items() if key in keys)
                raise ValueError(f"the strategy {self.name!r} has no setting {key!r}; it belongs to: {fit}")
        low, high = self.scale_range
        if not -LARGEST_SCALE <= low < high <= LARGEST_SCALE:
            raise ValueError(
                f"scale_range is [{low:g}, {high:g}]: give two numbers from -{LARGEST_SCALE} to {LARGEST_SCALE}, the "
                "smaller first"
            )
        return self


class MergeSettings(Strict):
    """How two parents make a child."""

    method: str = Field(
        "linear",
        description="the merge method: any for two models; of those that leave their span, children are kept on disk",
    )
    parameters: dict[str, Setting] = Field(
        default_factory=dict,
        description="its parameters, for both parents: numbers, gradients or filters; weights are 1 unless given",
    )

    @field_validator("method")
    @classmethod
    def _check_method(cls, name: str) -> str:
        try:
            method = get_method(name)  # of our own no other is imported, which cost 0.2 GB
        except InvalidConfig:
            raise ValueError(f"there is no merge method {name!r}. {nearest(name, methods())}") from None
        if method.beside:
            raise ValueError(f"{name} keeps more than weights, and a search breeds weights; kinship merge does it")
        if method.measures:
            raise ValueError(f"{name} measures models on data, for which a search has no place; kinship merge does it")
        if not _merges_pairs(method):
            fit = ", ".join(method.name for method in methods().values() if _merges_pairs(method))
            raise ValueError(f"{name} does not merge two models; a search merges by: {fit}")
        return name

    @model_validator(mode="after")
    def _check_parameters(self) -> Self:
        method = get_method(self.method)
        parameters = method.parameters
        known = [parameter.name for parameter in parameters]
        for key, setting in self.parameters.items():
            if key not in known:
                raise ValueError(f"{self.method} has no parameter {key!r}. {nearest(key, known)}")
            check_setting(setting, method.parameter(key), "the search")
        for parameter in parameters:
            if parameter.default is None and parameter.name not in {"weight", *self.parameters}:
                raise ValueError(f"{self.method} needs the parameter {parameter.name!r}: {parameter.help}")
        return self


def _merges_pairs(method: MergeMethod) -> bool:
    pairs = method.min_models <= 2 <= (method.max_models or 2)
    return pairs and not method.takes_whole_models and not method.module
