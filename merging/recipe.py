"""Recipes: how to make a model, in mergekit's YAML, checked by one schema."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError

from kinship.errors import InvalidConfig
from kinship.validation import Strict, invalid, nearest, read_yaml
from merging.registry import MergeMethod, get_method

DType = Literal["float32", "float16", "bfloat16"]

Scalar = bool | float
Gradient = Annotated[list[Scalar], Field(min_length=1)]


class Filtered(Strict):
    """A value for the tensors whose name contains ``filter``; ``*`` or none means all."""

    filter: str | None = Field(None, description="plain substring of tensor names")
    value: Scalar | Gradient = Field(description="a number, or a gradient over the layers")


Setting = Scalar | Gradient | Annotated[list[Filtered], Field(min_length=1)]


class Input(Strict):
    """One model of a merge."""

    model: str = Field(description="folder or .safetensors file")
    parameters: dict[str, Setting] = Field(default_factory=dict, description="this model's parameters")


class Recipe(Strict):
    """A merge: mergekit's ``models`` form."""

    merge_method: str = Field(description="linear, task_arithmetic or slerp")
    models: list[Input] = Field(min_length=1, description="the models to merge")
    base_model: str | None = Field(None, description="the model that task vectors start from; t = 0 of a slerp")
    parameters: dict[str, Setting] = Field(default_factory=dict, description="parameters for all models")
    dtype: DType | None = Field(None, description="dtype of the result; default: that of the inputs")

    @property
    def method(self) -> MergeMethod:
        """The merge method; raises `InvalidConfig` where there is none of that name."""
        return get_method(self.merge_method)

    @property
    def references(self) -> tuple[str, ...]:
        """Every model named, the base first where there is one, each once."""
        named = [self.base_model, *(entry.model for entry in self.models)]
        return tuple(dict.fromkeys(name for name in named if name is not None))

    def check(self) -> Self:
        """Raise `InvalidConfig` where the method cannot be run on these models with these parameters."""
        method = self.method
        count, most = len(self.models), method.max_models or len(self.models)
        if not method.min_models <= count <= most:
            wanted = method.min_models if method.min_models == method.max_models else f"at least {method.min_models}"
            raise InvalidConfig(f"{method.name} merges {wanted} models; the recipe lists {count}.")
        if (method.needs_base or self._scales()) and self.base_model is None:
            raise InvalidConfig(f"{method.name} needs a base model here.", hint="Add base_model: to the recipe.")
        if method.base_is_input and self.base_model not in [entry.model for entry in self.models]:
            raise InvalidConfig(
                f"base_model {self.base_model!r} is not among the models of this {method.name} merge.",
                hint="Set base_model to the one of the two models that t = 0 stands for.",
            )
        shared = {parameter.name for parameter in method.parameters}
        for where, given in [("the recipe", self.parameters), *((m.model, m.parameters) for m in self.models)]:
            for key in given:
                if key not in shared:
                    raise InvalidConfig(
                        f"{method.name} has no parameter {key!r} (given for {where}).",
                        hint=nearest(key, sorted(shared)),
                    )
                if given is not self.parameters and not method.parameter(key).per_model:
                    raise InvalidConfig(
                        f"{key!r} is a parameter of the whole {method.name} merge, but is given for {where} alone.",
                        hint="Move it to the recipe's own parameters:.",
                    )
        return self

    def _scales(self) -> bool:
        return self.parameters.get("scale", 1.0) != 1.0

    def to_yaml(self) -> str:
        """The recipe as mergekit YAML."""
        return str(yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without what was left at its default."""
        return self.model_dump(exclude_defaults=True)


def parse_recipe(content: object, source: str = "the recipe") -> Recipe:
    """A checked `Recipe` from plain data; raises `InvalidConfig` naming the nearest right key."""
    if isinstance(content, dict):
        later = sorted(content.keys() & {"slices", "modules", "out_dtype", "tokenizer_source", "tokenizer"})
        if later:
            raise InvalidConfig(
                f"{source} uses {later[0]!r}, a part of mergekit's YAML that is not supported yet.",
                hint="Use the models: form.",
            )
    try:
        return Recipe.model_validate(content).check()
    except ValidationError as error:
        raise invalid(error, source, Recipe) from None


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file. Relative model paths in it count from the working directory, as in mergekit."""
    return parse_recipe(read_yaml(path, "recipe"), str(path))
