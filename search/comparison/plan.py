"""The plan of a comparison: its cells, methods and settings, as people write them."""

from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from evaluators.settings import EvaluateSettings
from kinship.checkpoints.references import parse_reference, resolved
from kinship.errors import InvalidConfig
from kinship.validation import Strict, checked, read_yaml
from merging.recipe.data import DataSettings
from merging.registry import get_method

MOST_ARMS = 10_000
ROWS = ("base", "specialists", "nearest specialist", "multitask", "random task vectors")
"""What the rows that are no methods are called."""
Value = bool | int | float | list[float]
Values = Annotated[list[Value], Field(min_length=1)]


class Cell(Strict):
    """A task that is compared on: held in where a specialist was trained on it, else unseen."""

    task: str | None = Field(None, description="its name among the tasks of evaluate; default: that of the cell")
    model: str | None = Field(None, description="the specialist that was trained on it; without one it is unseen")
    skill: str | None = Field(None, description="its row in a grid of skills and domains")
    domain: str | None = Field(None, description="its column there")
    nearest: str | None = Field(
        None,
        description="of an unseen cell: the held-in cell whose specialist is the nearest; default: of those that share "
        "its skill or its domain, or of all where none does, the one that is best on its search split",
    )
    data: str | None = Field(
        None, description="documents that its specialist is measured on, for methods that see data: a .txt or .jsonl"
    )
    same_data: str | None = Field(
        None, description="another fine-tune on the same data: merged with the specialist it is a control"
    )

    @property
    def held_in(self) -> bool:
        """Whether it has a specialist."""
        return self.model is not None


class MethodSettings(Strict):
    """A method as it is compared: as it is by default, and tuned."""

    method: str | None = Field(None, description="the merge method; default: what the entry is called")
    parameters: dict[str, Value] = Field(default_factory=dict, description="parameters of the untuned arm")
    tune: dict[str, Values] = Field(
        default_factory=dict, description="values to choose from on the search split of the held-in cells, by parameter"
    )
    sweep: dict[str, Values] = Field(
        default_factory=dict, description="values at which sensitivity is shown, by parameter; those of tune are, too"
    )


class NumberSettings(Strict):
    """How scores change with the number of models merged."""

    methods: list[str] = Field(default_factory=list, description="of which methods, untuned; default: of none")
    orders: int = Field(10, ge=1, description="random orders of the models, whose beginnings are merged")


class ComparisonPlan(Strict):
    """A whole comparison. Relative paths count from the folder of the plan."""

    base: str = Field(description="the model that all specialists were fine-tuned from")
    frame: str | None = Field(
        None,
        description="the model of the plan whose tokenizer, chat template and end tokens all are scored in; default: "
        "those that the specialists share",
    )
    cells: dict[str, Cell] = Field(description="what is compared on, by name")
    evaluate: EvaluateSettings = Field(description="the tasks of the cells, and how they are run")
    methods: dict[str, MethodSettings] = Field(
        min_length=1, description="what is compared: a list of merge methods, or a mapping of names to settings"
    )
    reference: str | None = Field(None, description="the method that others are compared with; default: the first")
    multitask: str | None = Field(None, description="a model trained on all held-in cells at once")
    controls: list[Literal["random_vector"]] = Field(
        ["random_vector"],
        description="random_vector: the average of random task vectors of the specialists' lengths",
    )
    number: NumberSettings = Field(default_factory=NumberSettings, description="whether the number of models is varied")
    data: DataSettings = Field(default_factory=DataSettings, description="how models are measured on the cells' data")
    seeds: list[int] = Field(
        default_factory=lambda: [0, 1, 2],
        min_length=1,
        description="of splits and of methods that draw: everything is done once for each",
    )
    order_seed: int = Field(0, ge=0, description="of the orders in which models are added")

    @field_validator("methods", mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            return value
        if len(set(value)) < len(value):
            raise ValueError("one is named twice")
        return {name: {} for name in value}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.held_in) < 2:
            raise ValueError("fewer than two cells have a model: there is nothing to merge")
        for name, cell in self.cells.items():
            if cell.nearest is not None and cell.nearest not in self.held_in:
                raise ValueError(f"the cell {name!r} has for nearest {cell.nearest!r}, which is no cell with a model")
            if cell.same_data is not None and not cell.held_in:
                raise ValueError(f"the cell {name!r} has same_data, and no model that it could be merged with")
        for name in [*self.number.methods, *filter(None, [self.reference])]:
            if name not in self.methods:
                raise ValueError(f"{name!r} is none of the methods compared")
        own_rows = {
            *ROWS,
            *(f"same data ({name})" for name in self.cells),
            *(f"{name} (tuned)" for name in self.methods),
        }
        if same := sorted(own_rows & self.methods.keys()):
            raise ValueError(f"methods: {same[0]!r} is what another row is called: name it otherwise, and say method:")
        if self.data.statistics is not None:
            raise ValueError("data.statistics: a comparison keeps what it measures in its own folder; leave it out")
        if len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError("seeds are numbers from 0 on, each once: one that counts twice makes intervals too narrow")
        if (count := self._most_arms()) > MOST_ARMS:
            raise ValueError(
                f"it asks for up to {count:,} merges, and {MOST_ARMS:,} is the most: leave out some values"
            )
        if self.frame is not None and self.frame not in self.models:
            raise ValueError(f"frame: {self.frame!r} is none of the models: {', '.join(self.models)}")
        places = [(cell.skill, cell.domain) for cell in self.cells.values() if cell.skill and cell.domain]
        if len(set(places)) < len(places):
            raise ValueError("two cells have one skill and one domain")
        tasks = [self.task_of(name) for name in self.cells]
        if len(set(tasks)) < len(tasks):
            raise ValueError("two cells have one task")
        return self

    def _most_arms(self) -> int:
        """What nothing that is the same twice is taken off of."""
        grids = sum(prod(map(len, method.tune.values())) for method in self.methods.values())
        sweeps = sum(len(values) for method in self.methods.values() for values in method.sweep.values())
        return len(self.seeds) * grids + sweeps + len(self.number.methods) * self.number.orders * len(self.held_in)

    @property
    def held_in(self) -> list[str]:
        """The cells with a specialist, in order."""
        return [name for name, cell in self.cells.items() if cell.held_in]

    @property
    def unseen(self) -> list[str]:
        """The cells without, in order."""
        return [name for name, cell in self.cells.items() if not cell.held_in]

    @property
    def models(self) -> list[str]:
        """All models, the base first, each once."""
        cells = [model for cell in self.cells.values() for model in (cell.model, cell.same_data)]
        return [model for model in dict.fromkeys([self.base, *cells, self.multitask]) if model]

    @property
    def reference_method(self) -> str:
        """The name of the method that others are compared with."""
        return self.reference or next(iter(self.methods))

    def near(self, cell: str) -> list[str]:
        """The held-in cells whose specialists may be the nearest to an unseen one."""
        own = self.cells[cell]
        if own.nearest is not None:
            return [own.nearest]
        kin = [
            name
            for name in self.held_in
            if any(
                ours is not None and ours == theirs
                for ours, theirs in (
                    (own.skill, self.cells[name].skill),
                    (own.domain, self.cells[name].domain),
                )
            )
        ]
        return kin or self.held_in

    def task_of(self, cell: str) -> str:
        """The name of its task."""
        return self.cells[cell].task or cell

    def method_of(self, name: str) -> str:
        """The merge method of an entry."""
        return self.methods[name].method or name

    def require_methods(self) -> None:
        """Raise `InvalidConfig` for a merge method that is not there, or cannot be tried on these cells."""
        for name in self.methods:
            method = get_method(self.method_of(name))
            if method.base == "merged":
                raise InvalidConfig(
                    f"{name} cannot be compared: {method.name} merges two models, one of which is its base, and a "
                    f"comparison merges all {len(self.held_in)} specialists.",
                    hint="Leave it out of the plan's methods.",
                )
            lacking = [cell for cell in self.held_in if not self.cells[cell].data]
            if method.measures and lacking and (self.data.file is None) == (self.data.texts is None):
                raise InvalidConfig(
                    f"{name} cannot be compared: it measures each model on documents, and the cell {lacking[0]} has "
                    "none.",
                    hint=f"Give cells.{lacking[0]}.data, a .txt or .jsonl file; or data.file, for all; or leave the "
                    "method out.",
                )

    def rooted(self, root: Path) -> "ComparisonPlan":
        """The same with paths of models and documents that count from the working directory."""

        def found(model: str | None) -> str | None:
            return model and str(resolved(parse_reference(model, root), root))

        cells = {
            name: cell.model_copy(
                update={
                    "model": found(cell.model),
                    "same_data": found(cell.same_data),
                    "data": cell.data and str(root / cell.data),
                }
            )
            for name, cell in self.cells.items()
        }
        own = {name: found(getattr(self, name)) for name in ("base", "multitask", "frame")}
        data = self.data
        if data.file is not None:
            data = data.model_copy(update={"file": str(root / data.file)})
        return self.model_copy(update=own | {"cells": cells, "data": data})


def parse_plan(content: object, source: str = "the plan") -> ComparisonPlan:
    """A checked `ComparisonPlan` from plain data; raises `InvalidConfig` naming the nearest right key."""
    return checked(ComparisonPlan, content, source)


def load_plan(path: str | Path) -> ComparisonPlan:
    """Read the plan at ``path``. Raises `ReferenceNotFound` or `InvalidConfig`."""
    return parse_plan(read_yaml(path, "plan"), str(path))
