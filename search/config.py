"""The run file: one schema for YAML, command line and API."""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from evaluators.racing.race import RaceSettings
from evaluators.scores.aggregates import Aggregate
from evaluators.settings import EvaluateSettings
from evaluators.workers.settings import WorkerSettings
from kinship.errors import KinshipWarning
from kinship.validation import Strict, checked, read_yaml
from search.evolve_config import is_evolve_config, translated
from search.strategies.settings import MergeSettings, StrategySettings
from search.strategies.span_points import SEARCHES_WEIGHTS, require_weights

OFFSPRING_ID = re.compile(r"(control-)?\d+-\d+")
GENERATIONS = 10
MOST = 2**31 - 1  # what a column of integers holds in every database


class StopSettings(Strict):
    """When to stop, beside a strategy that has nothing more to propose: whichever comes first."""

    generations: int | None = Field(
        None,
        ge=1,
        le=MOST,
        description=f"at most this many generations; {GENERATIONS} where no evaluations, documents or hours are given",
    )
    evaluations: int | None = Field(
        None,
        ge=1,
        le=MOST,
        description="at most this many offspring, counting those that failed or double an earlier one",
    )
    documents: int | None = Field(
        None,
        ge=1,
        le=MOST,
        description="no new generation after this many documents scored, all models together, search split",
    )
    hours: float | None = Field(None, gt=0, description="no new generation after this many hours of work")
    kinship_above: float | None = Field(
        None, description="mean kinship among the top k beyond which they are too alike (a distance: below it)"
    )

    @property
    def most_generations(self) -> int | None:
        """At most so many generations; None where another budget is to end the run."""
        limited = self.evaluations or self.documents or self.hours
        return self.generations or (None if limited else GENERATIONS)


class RunConfig(Strict):
    """A whole run. Relative paths in a run file count from the folder of that file."""

    base: str = Field(description="the model that all founders were fine-tuned from")
    founders: dict[str, str] = Field(
        min_length=2, description="models the search starts from: a list of folders, or a mapping of names to folders"
    )
    evaluate: EvaluateSettings = Field(description="what to score on")
    frame: str | None = Field(
        None,
        description="whose tokenizer, chat template, generation config and end tokens everyone is scored with and "
        "offspring get: base, or a founder's name; default: the founders', where they agree",
    )
    tokenizer_source: str | None = Field(
        None,
        description="whose vocabulary everyone is brought to where vocabularies differ: union (of all tokens), base, "
        "or a founder's name; default: that of the frame",
    )
    merge: MergeSettings = Field(default_factory=MergeSettings, description="how two parents make a child")
    strategy: StrategySettings = Field(default_factory=StrategySettings, description="which parents meet")
    aggregate: Aggregate = Field(default_factory=Aggregate, description="how the tasks' scores become one number")
    race: RaceSettings = Field(
        default_factory=RaceSettings, description="stop scoring candidates that will not make it"
    )
    stop: StopSettings = Field(default_factory=StopSettings, description="when to stop")
    workers: WorkerSettings = Field(default_factory=WorkerSettings, description="who does the work")
    controls: list[Literal["random_vector"]] = Field(
        default_factory=list,
        max_length=1,
        description="what the best offspring is compared with in the end, beside the budget: random_vector, the same "
        "merge with a random task vector, as long in every tensor, in the place of the founder that weighs most in it",
    )
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

    @model_validator(mode="after")
    def _check_method(self) -> Self:
        if self.strategy.name in SEARCHES_WEIGHTS:  # before founders are scored
            require_weights(self.merge, self.strategy.name)
        return self

    @model_validator(mode="after")
    def _check_race(self) -> Self:
        if self.race.enabled and self.aggregate.kind == "worst":
            raise ValueError(
                "a race estimates means of tasks, not the worst of them: choose another aggregate, or none"
            )
        return self

    @model_validator(mode="after")
    def _check_answers(self) -> Self:
        if self.strategy.name == "niches" and self.race.enabled:
            raise ValueError("niches are made by everyone's answers to all documents: race cannot be enabled")
        if self.strategy.name == "niches" and self.aggregate.kind == "worst":
            raise ValueError("niches share out a sum over documents, not the worst of tasks: choose another aggregate")
        return self

    @property
    def references(self) -> dict[str, str]:
        """The models by id, the base first."""
        return {"base": self.base, **self.founders}

    def to_record(self) -> dict[str, Any]:
        """All that may decide what is found, as plain data: not who does the work."""
        return self.model_dump(mode="json", exclude={"workers"})


def parse_config(content: object, source: str = "the run") -> RunConfig:
    """A checked `RunConfig` from plain data; raises `InvalidConfig` naming the nearest right key."""
    return checked(RunConfig, content, source)


def load_config(path: str | Path) -> RunConfig:
    """Read a run file, or a mergekit-evolve config as one, with a `KinshipWarning` of each thing that it says
    otherwise.

    Raises `ReferenceNotFound` or `InvalidConfig`.
    """
    content = read_yaml(path, "run file")
    if is_evolve_config(content):
        content, notes = translated(content, str(path))
        for note in notes:
            warnings.warn(note, KinshipWarning, stacklevel=2)
    return parse_config(content, str(path))
