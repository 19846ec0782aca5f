"""Recipes of mixtures of experts: mergekit-moe's YAML, checked."""

from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field

from kinship.errors import InvalidConfig
from kinship.validation import Strict, checked, read_yaml_documents
from merging.recipe.schema import DTypeName, Model, Recipe, load_recipe, parse_recipe
from merging.registry import MergeMethod, get_method

GateMode = Literal["hidden", "hidden_avg", "hidden_last", "cheap_embed", "random", "uniform_random"]
FROM_PROMPTS = ("hidden", "hidden_avg", "hidden_last", "cheap_embed")

METHOD = "moe"


class Expert(Strict):
    """One expert: the MLPs of a dense model, and what it is for."""

    source_model: Model = Field(description="the dense model whose MLPs they are")
    positive_prompts: list[str] = Field(default_factory=list, description="texts that it is to be chosen for")
    negative_prompts: list[str] = Field(default_factory=list, description="texts that it is not to be chosen for")
    residual_scale: float | None = Field(None, description="factor of what it adds to the residual stream")
    noise_scale: float | None = Field(None, description="mergekit's noise on an expert's weights: only 0 here")


class MixtureRecipe(Strict):
    """A mixture of experts: attention, norms and embeddings of the base, MLPs of the experts, and gates."""

    merge_method: Literal["moe"] = Field("moe", description="moe, or left out as in mergekit-moe's files")
    base_model: Model = Field(description="the dense model that everything but the MLPs comes from")
    experts: list[Expert] = Field(min_length=1, description="the experts, in order")
    shared_experts: list[Expert] = Field(
        default_factory=list, description="one that every token goes through (Qwen2-MoE alone)"
    )
    gate_mode: GateMode = Field("hidden", description="what gates are made of")
    experts_per_token: int = Field(2, ge=1, description="experts that each token goes through")
    architecture: Literal["mixtral", "qwen", "qwen2_moe", "qwen3", "qwen3_moe"] | None = Field(
        None, description="of the result; default: the one that goes with the base model"
    )
    dtype: DTypeName | None = Field(None, description="dtype of the result; default: that of the models")

    @property
    def method(self) -> MergeMethod:
        """What the catalogue says of it."""
        return get_method(METHOD)

    @property
    def references(self) -> tuple[str, ...]:
        """Every model read, the base first, each once."""
        everyone = [self.base_model, *(expert.source_model for expert in [*self.experts, *self.shared_experts])]
        return tuple(dict.fromkeys(map(str, everyone)))

    @property
    def data_paths(self) -> tuple[str, ...]:
        """Files that it names beside models: none."""
        return ()

    def check(self) -> Self:
        """Raise `InvalidConfig` where gates cannot be made so, or experts not be chosen so."""
        everyone = [*self.experts, *self.shared_experts]
        if any(not isinstance(model, str) for model in [self.base_model, *(one.source_model for one in everyone)]):
            raise InvalidConfig("A mixture is made of models, not of recipes.", hint="Write that merge first.")
        if self.experts_per_token > len(self.experts):
            raise InvalidConfig(
                f"Each token is to go through {self.experts_per_token} of {len(self.experts)} experts.",
                hint="Lower experts_per_token, or list more experts; one may be listed twice.",
            )
        if len(self.shared_experts) > 1:
            raise InvalidConfig(f"The recipe has {len(self.shared_experts)} shared experts; at most one was expected.")
        if noisy := next((one for one in everyone if one.noise_scale), None):
            raise InvalidConfig(
                f"noise_scale of {noisy.source_model} is {noisy.noise_scale}; experts are taken as they are.",
                hint="Leave it out, or merge noise into the model first.",
            )
        prompted = self.gate_mode in FROM_PROMPTS
        lacking = next((one for one in everyone if prompted and not one.positive_prompts), None)
        if lacking is not None:
            raise InvalidConfig(
                f"The expert {lacking.source_model} has no positive_prompts, of which gate_mode {self.gate_mode} makes "
                "its gate.",
                hint="Give prompts that it is good at, or gate_mode: random, for a mixture that is trained further.",
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without what was left at its default."""
        return {"merge_method": METHOD, **self.model_dump(mode="json", exclude_defaults=True)}

    def to_yaml(self) -> str:
        """The recipe as YAML that mergekit-moe reads, too, once its first line is taken away."""
        return str(yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True))


AnyRecipe = Recipe | MixtureRecipe


def load_any_recipe(path: Path) -> AnyRecipe:
    """Read a recipe file of a merge or of a mixture: see `parse_any_recipe`. Raises as `load_recipe`."""
    documents = read_yaml_documents(path, "recipe")
    return parse_any_recipe(documents[0], str(path)) if len(documents) == 1 else load_recipe(path)


def parse_any_recipe(content: object, source: str = "the recipe") -> AnyRecipe:
    """A mixture where plain data say ``merge_method: moe``, or list ``experts`` and no method; else a merge.

    Raises `InvalidConfig` naming the nearest right key.
    """
    mixed = isinstance(content, dict) and content.get("merge_method", METHOD if "experts" in content else "") == METHOD
    return parse_mixture(content, source) if mixed else parse_recipe(content, source)


def parse_mixture(content: object, source: str = "the recipe") -> MixtureRecipe:
    """A checked `MixtureRecipe` from plain data; raises `InvalidConfig` naming the nearest right key."""
    return checked(MixtureRecipe, content, source).check()
