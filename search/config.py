"""The run file: one schema for YAML, command line and API."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from evaluators.settings import EvaluateSettings
from kinship.validation import Strict, invalid, nearest, read_yaml
from merging.recipe import Setting
from merging.registry import MergeMethod, get_method, methods

OFFSPRING_ID = re.compile(r"\d+-\d+")


class MergeSettings(Strict):
    """How two parents make a child."""

    method: str = Field("linear", description="the merge method: one that stays in the span of two models")
    parameters: dict[str, Setting] = Field(
        default_factory=dict,
        description="its parameters, for both parents: numbers, gradients or filters; weights are 1 unless given",
    )

    @field_validator("method")
    @classmethod
    def _check_method(cls, name: str) -> str:
        known = methods()
        if name not in known:
            raise ValueError(f"there is no merge method {name!r}. {nearest(name, known)}")
        if not _merges_pairs_in_span(known[name]):
            fit = ", ".join(method.name for method in known.values() if _merges_pairs_in_span(method))
            raise ValueError(f"{name} does not make a linear combination of two models; a search merges by: {fit}")
        return name

    @model_validator(mode="after")
    def _check_parameters(self) -> Self:
        method = get_method(self.method)
        parameters = method.parameters
        known = [parameter.name for parameter in parameters]
        for key in self.parameters:
            if key not in known:
                raise ValueError(f"{self.method} has no parameter {key!r}. {nearest(key, known)}")
        for parameter in parameters:
            if parameter.default is None and parameter.name not in {"weight", *self.parameters}:
                raise ValueError(f"{self.method} needs the parameter {parameter.name!r}: {parameter.help}")
        if not method.in_span({parameter.name: parameter.default for parameter in parameters} | self.parameters):
            raise ValueError(f"with these parameters {self.method} makes no linear combination, as a search needs")
        return self


def _merges_pairs_in_span(method: MergeMethod) -> bool:
    return method.combine is not None and method.min_models <= 2 <= (method.max_models or 2)


class StrategySettings(Strict):
    """Top-k greedy merging (Hu et al., arXiv 2410.12613v3, Algorithm 1) and its control."""

    variant: Literal["vanilla", "kinship", "random"] = Field(
        "kinship",
        description="vanilla merges the pairs of the top k; kinship adds the best model with its least related "
        "partner; random adds a random partner instead, the control that tells whether kinship helped",
    )
    k: int = Field(3, ge=2, description="how many of the best models are merged with each other")
    partner_pool: Literal["previous", "all", "outside"] = Field(
        "previous",
        description="where the added partner comes from: the generation before the best models' (as the paper's runs "
        "did), all models, or all outside the top k",
    )
    metric: Literal["pcc", "cosine", "euclidean"] = Field("pcc", description="kinship metric")


class StopSettings(Strict):
    """When to stop, beside an unchanged top k: whichever comes first."""

    generations: int = Field(10, ge=1, description="at most this many generations")
    evaluations: int | None = Field(None, ge=1, description="at most this many offspring scored")
    kinship_above: float | None = Field(
        None, description="mean kinship among the top k beyond which they are too alike (a distance: below it)"
    )


class RunConfig(Strict):
    """A whole run. Relative paths in a run file count from the folder of that file."""

    base: str = Field(description="the model that all founders were fine-tuned from")
    founders: dict[str, str] = Field(
        min_length=2, description="models the search starts from: a list of folders, or a mapping of names to folders"
    )
    evaluate: EvaluateSettings = Field(description="what to score on")
    merge: MergeSettings = Field(default_factory=MergeSettings, description="how two parents make a child")
    strategy: StrategySettings = Field(default_factory=StrategySettings, description="which parents meet")
    stop: StopSettings = Field(default_factory=StopSettings, description="when to stop")
    seed: int = Field(0, ge=0, description="seed of everything random in the search")

    @field_validator("founders", mode="before")
    @classmethod
    def _name_founders(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        names = [Path(str(path)).name for path in value]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two founders are called {name!r}; give a mapping of names to folders")
        return dict(zip(names, value, strict=True))

    @field_validator("founders")
    @classmethod
    def _check_names(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for name in value:
            if name in ("", "base") or OFFSPRING_ID.fullmatch(name):
                raise ValueError(f"a founder cannot be called {name!r}; give a mapping of other names to folders")
        return value


def parse_config(content: object, source: str = "the run") -> RunConfig:
    """A checked `RunConfig` from plain data; raises `InvalidConfig` naming the nearest right key."""
    try:
        return RunConfig.model_validate(content)
    except ValidationError as error:
        raise invalid(error, source, RunConfig) from None


def load_config(path: Path) -> RunConfig:
    """Read a run file; raises `ReferenceNotFound` or `InvalidConfig`."""
    return parse_config(read_yaml(path, "run file"), str(path))
