"""Recipes: how to make a model, in mergekit's YAML, checked by one schema; a model in it may be a recipe itself."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BeforeValidator, Discriminator, Field, Tag

from kinship.errors import InvalidConfig
from kinship.validation import Strict, checked, nearest, read_yaml_documents
from merging.recipe.alignment import Align
from merging.recipe.data import DataSettings, DataSource, SurgerySettings
from merging.recipe.documents import as_reference, as_task_arithmetic, separate, united
from merging.recipe.parameters import Filtered as Filtered
from merging.recipe.parameters import Scalar as Scalar
from merging.recipe.parameters import Scope, check_setting
from merging.recipe.parameters import Setting as Setting
from merging.recipe.tokenizer import TokenizerSettings as TokenizerSettings
from merging.registry import MergeMethod, get_method

DTypeName = Literal["float32", "float16", "bfloat16"]

# Parameters of mergekit that change how it computes and nothing in the result: read, and without effect here too.
WITHOUT_EFFECT = {"int8_mask"}

# What only the outermost recipe may say: in between, everything stays in float32 and in one vocabulary.
_OUTERMOST = (
    "align",
    "data",
    "dtype",
    "out_dtype",
    "tokenizer_source",
    "tokenizer",
    "chat_template",
    "generation_config",
    "surgery",
)


def _kind_of_model(value: Any) -> str:
    return "[recipe]" if isinstance(value, Mapping | Recipe) else "str"


# The tags are not shown in errors, see kinship.validation.
Model = Annotated[
    Annotated[str, Tag("str")] | Annotated["Recipe", Tag("[recipe]")],
    Discriminator(_kind_of_model),
    BeforeValidator(as_reference),
]


class Input(Strict):
    """One model of a merge."""

    model: Model = Field(description="folder, .safetensors file, Hub id, BASE+ADAPTER, or a whole recipe")
    parameters: dict[str, Setting] = Field(default_factory=dict, description="this model's parameters")
    data: DataSource | None = Field(None, description="documents of this model's own task, for methods that see data")


class Source(Input):
    """Some layers of one model."""

    layer_range: tuple[int, int] = Field(description="the first layer, and the one after the last")


class Slice(Strict):
    """Layers of the result, merged from as many layers of each of its sources."""

    sources: list[Source] = Field(min_length=1, description="what is merged into these layers")
    base_model: Model | None = Field(None, description="as the recipe's, for this slice")
    parameters: dict[str, Setting] = Field(default_factory=dict, description="parameters for this slice")


class Module(Strict):
    """What mergekit calls a module: the whole of a model with one stack of layers."""

    models: list[Input] = Field(default_factory=list, min_length=1, description="the models to merge")
    slices: list[Slice] = Field(default_factory=list, min_length=1, description="the slices, from the first layer on")
    parameters: dict[str, Setting] = Field(default_factory=dict, description="parameters for the module")


@dataclass(frozen=True)
class Part:
    """What is merged into one run of layers: ``inputs``, the ``base``, and the ``scopes`` of parameters around them."""

    inputs: tuple[Input, ...]
    base: "str | Recipe | None"
    scopes: tuple[Scope, ...]

    @property
    def layers(self) -> int | None:
        """How many layers it makes; None for all there are."""
        first = self.inputs[0]
        return first.layer_range[1] - first.layer_range[0] if isinstance(first, Source) else None

    @property
    def every_scope(self) -> tuple[Scope, ...]:
        """The parameters of each input, and those around them."""
        return (*(entry.parameters for entry in self.inputs), *self.scopes)

    def merged(self, method: MergeMethod) -> tuple[Input, ...]:
        """The inputs that ``method`` merges: a base that it works from is none of them; one that it starts at is first.

        Listing the base among the models of a task-vector method is usual, and without effect.
        """
        if self.base is None:
            return self.inputs
        if method.base == "merged":
            return tuple(sorted(self.inputs, key=lambda entry: entry.model != self.base))
        if method.subtracts_base:
            return tuple(entry for entry in self.inputs if entry.model != self.base)
        return self.inputs


class Recipe(Strict):
    """A merge."""

    name: str | None = Field(None, min_length=1, description="what other documents of the same file call it")
    merge_method: str = Field(description="name of the method")
    models: list[Input] = Field(default_factory=list, min_length=1, description="the models to merge")
    slices: list[Slice] = Field(default_factory=list, min_length=1, description="or slices of layers, first to last")
    modules: dict[str, Module] = Field(default_factory=dict, min_length=1, description="or one module of these")
    base_model: Model | None = Field(None, description="the model that task vectors start from; t = 0 of a slerp")
    parameters: dict[str, Setting] = Field(default_factory=dict, description="parameters for all models")
    data: DataSettings | None = Field(None, description="what models are measured on, for methods that see data")
    align: Align | None = Field(None, description="the model whose order of units the others get before the merge")
    surgery: SurgerySettings | None = Field(None, description="heads that are fitted on data and kept beside the merge")
    dtype: DTypeName | None = Field(None, description="inputs are rounded to it; default: as they are")
    out_dtype: DTypeName | None = Field(None, description="dtype of the result; default: dtype, or that of the inputs")
    tokenizer_source: str | None = Field(None, description="base, union, or one of the models")
    tokenizer: TokenizerSettings | None = Field(None, description="the same, and more")
    chat_template: str | None = Field(None, description="auto, a name as chatml, or a Jinja template")
    generation_config: str | None = Field(
        None, description="the model whose generation config, end tokens and special token ids the result gets"
    )

    @property
    def method(self) -> MergeMethod:
        """The merge method; raises `InvalidConfig` where there is none of that name."""
        return get_method(self.merge_method)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The slices, in order; of a recipe without slices the one that stands for the whole."""
        forms: list[tuple[Recipe | Module, tuple[Scope, ...]]] = [(self, (self.parameters,))]
        forms += [(module, (module.parameters, self.parameters)) for module in self.modules.values()]
        found = []
        for form, scopes in forms:
            if form.models:
                found.append(Part(tuple(form.models), self.base_model, scopes))
            for part in form.slices:
                base = self.base_model if part.base_model is None else part.base_model
                found.append(Part(tuple(part.sources), base, (part.parameters, *scopes)))
        return tuple(found)

    @property
    def sliced(self) -> bool:
        """Whether the result's layers are listed one slice after another."""
        return bool(self.slices or any(module.slices for module in self.modules.values()))

    @property
    def references(self) -> tuple[str, ...]:
        """Every model read, the base first where there is one, each once; of nested recipes theirs."""
        found: dict[str, None] = {}
        for model in self._models():
            found |= dict.fromkeys([model] if isinstance(model, str) else model.references)
        return tuple(found | ({self.align.to: None} if self.align is not None else {}))

    @property
    def merged(self) -> tuple[str, ...]:
        """Every model merged, each once; a base of task vectors is none, unless it is among them."""
        found: dict[str, None] = {}
        for part in self.parts:
            entries: list[str | Recipe] = [entry.model for entry in part.inputs]
            if self.method.base == "merged":
                entries = [model for model in (self.base_model, part.base) if model is not None] + entries
            for model in entries:
                found |= dict.fromkeys([model] if isinstance(model, str) else model.merged)
        return tuple(found) or self.references

    @property
    def nested(self) -> "list[Recipe]":
        """The recipes that stand in the place of models."""
        return [model for model in self._models() if isinstance(model, Recipe)]

    @property
    def data_sources(self) -> list[DataSource]:
        """The documents of each model merged, in their order; of a recipe without data none."""
        merged = [entry for part in self.parts for entry in part.merged(self.method)]
        return [source for entry in merged if (source := entry.data or self.data) is not None]

    @property
    def data_paths(self) -> list[str]:
        """Every file and folder that it names for its data."""
        given = [self.data, *(entry.data for part in self.parts for entry in part.inputs)]
        files = [source.file for source in given if source is not None and source.file is not None]
        return files + ([self.data.statistics] if self.data is not None and self.data.statistics else [])

    @property
    def tokenizer_settings(self) -> TokenizerSettings | None:
        """What the recipe says of the tokenizer, in either form."""
        if self.tokenizer_source is not None:
            return TokenizerSettings(source=self.tokenizer_source)
        return self.tokenizer

    def _models(self) -> "Iterator[str | Recipe]":
        if self.base_model is not None:
            yield self.base_model
        for part in self.parts:
            if part.base is not None:
                yield part.base
            yield from (entry.model for entry in part.inputs)

    def check(self) -> Self:
        """Raise `InvalidConfig` where the method cannot be run on these models with these parameters."""
        method = self.method
        if method.module:
            raise InvalidConfig(
                f"{method.name} is no merge_method of models: {method.summary or 'see `kinship methods`'}",
                hint=f"`kinship methods {method.name}` tells how it is asked for.",
            )
        _check_form(self)
        scaled = self.scales()  # which looks at every part, so it is asked once
        for part in self.parts:
            _check_models(method, part, scaled)
        scopes = [(entry, label(entry.model), True) for part in self.parts for entry in part.inputs]
        wider: Sequence[Recipe | Module | Slice] = [self, *self.modules.values(), *self.slices]
        wider = [*wider, *(part for module in self.modules.values() for part in module.slices)]
        for holder, where, one_model in [*((form, "the recipe", False) for form in wider), *scopes]:
            _check_parameters(method, holder.parameters, where, one_model)
        _check_data(self)
        for recipe in self.nested:
            if recipe.method.takes_whole_models:
                raise _not_whole(recipe.method.name)
            given = [key for key in _OUTERMOST if getattr(recipe, key) is not None]
            if given:
                raise InvalidConfig(
                    f"A recipe inside the recipe says {given[0]!r}; only the outermost may.",
                    hint="What lies between is kept in float32. Move it to the top of the file.",
                )
            recipe.check()
        return self

    def scales(self) -> bool:
        """Whether it is an average whose task vector is stretched, which needs a base."""
        return any(scope.get("scale", 1.0) != 1.0 for scope in (self.parameters, *_module_scopes(self))) and any(
            parameter.name == "scale" and not parameter.per_model for parameter in self.method.parameters
        )

    def to_yaml(self) -> str:
        """The recipe as YAML that mergekit reads the same way, where it can.

        mergekit's linear merge has no scale; a scaled one is written as the task arithmetic that it is.
        """
        content, note = self.to_dict(), ""
        if self.scales():
            if any(entry.model == part.base for part in self.parts for entry in part.inputs):
                note = "# mergekit does not know the parameter 'scale' of linear.\n"
            else:
                content = as_task_arithmetic(content)
        steps = separate(content)
        if len(steps) > 1:
            note += "# Several merges, the last made of the others: kinship merge reads them, and mergekit-multi.\n"
        return note + "---\n".join(str(yaml.safe_dump(step, sort_keys=False, allow_unicode=True)) for step in steps)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without what was left at its default."""
        return self.model_dump(mode="json", exclude_defaults=True)


def label(model: "str | Recipe") -> str:
    """A model of a recipe, for people."""
    return model if isinstance(model, str) else f"the {model.merge_method} merge inside"


def parse_recipe(content: object, source: str = "the recipe") -> Recipe:
    """A checked `Recipe` from plain data; raises `InvalidConfig` naming the nearest right key."""
    return checked(Recipe, content, source).check()


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe file: one merge or, as for mergekit-multi, several documents that name each other.

    Relative model paths count from the working directory, as in mergekit. Raises `InvalidConfig`, `ReferenceNotFound`.
    """
    documents = read_yaml_documents(path, "recipe")
    return parse_recipe(documents[0] if len(documents) == 1 else united(documents, str(path)), str(path))


def _check_form(recipe: Recipe) -> None:
    if not (recipe.models or recipe.slices or recipe.modules):
        raise InvalidConfig("The recipe lacks the key 'models'.", hint="Add models:, or slices: of layers.")
    everyone: list[Recipe | Module] = [recipe, *recipe.modules.values()]
    forms = [form for form in everyone if form.models or form.slices]
    if len(forms) > 1 or any(bool(form.models) == bool(form.slices) for form in [*forms, *everyone[1:]]):
        raise InvalidConfig(
            "The recipe gives models, slices and modules together, or several modules; one of them was expected.",
            hint="Give models:, or slices:, or one module with either. A model with several stacks of layers is "
            "merged whole by models:.",
        )
    if recipe.tokenizer is not None and recipe.tokenizer_source is not None:
        raise InvalidConfig("The recipe gives both tokenizer and tokenizer_source.", hint="Keep tokenizer: alone.")
    for part in recipe.parts:
        ranges = [entry.layer_range for entry in part.inputs if isinstance(entry, Source)]
        if any(not 0 <= first < last for first, last in ranges) or len({last - first for first, last in ranges}) > 1:
            shown = ", ".join(f"[{first}, {last}]" for first, last in ranges)
            raise InvalidConfig(
                f"A slice takes the layers {shown}; as many layers of each source, and at least one, were expected.",
                hint="layer_range is the first layer and the one after the last.",
            )


def _check_models(method: MergeMethod, part: Part, scaled: bool) -> None:
    if (method.needs_base or scaled) and part.base is None:
        raise InvalidConfig(f"{method.name} needs a base model here.", hint="Add base_model: to the recipe.")
    listed = [entry.model for entry in part.inputs]
    if method.base == "merged" and part.base not in listed:
        raise InvalidConfig(
            f"base_model {label(part.base or '')!r} is not among the models of this {method.name} merge.",
            hint="Set base_model to the one of the two models that t = 0 stands for.",
        )
    if method.base == "none" and not scaled and part.base is not None and part.base not in listed:
        raise InvalidConfig(
            f"base_model {label(part.base)!r} has no part in a {method.name} merge.",
            hint="Leave it out; or list it among the models, as mergekit would take it.",
        )
    count = len(part.merged(method))
    if not method.min_models <= count <= (method.max_models or count):
        least, most = method.min_models, method.max_models
        wanted = least if least == most else f"at least {least}" if most is None else f"{least} to {most}"
        aside = " beside the base" if method.base == "needed" else ""
        raise InvalidConfig(f"{method.name} merges {wanted} models{aside}; the recipe lists {count}.")


def _check_parameters(method: MergeMethod, given: Scope, where: str, one_model: bool) -> None:
    known = {parameter.name: parameter for parameter in method.parameters}
    for key, setting in given.items():
        if key in known:
            check_setting(setting, known[key], where)
        elif key not in WITHOUT_EFFECT:
            raise InvalidConfig(
                f"{method.name} has no parameter {key!r} (given for {where}).", hint=nearest(key, sorted(known))
            )
        if one_model and key in known and not known[key].per_model:
            raise InvalidConfig(
                f"{key!r} is a parameter of the whole {method.name} merge, but is given for {where} alone.",
                hint="Move it to the recipe's own parameters:.",
            )


def _check_data(recipe: Recipe) -> None:
    method = recipe.method
    given = recipe.data is not None or any(entry.data for part in recipe.parts for entry in part.inputs)
    sees = method.measures is not None or recipe.surgery is not None
    if given and not sees:
        raise InvalidConfig(
            f"{method.name} looks at no data, and the recipe gives some.", hint="Leave data out, or see methods.md."
        )
    if not (sees or method.beside):
        return
    if recipe.sliced or recipe.nested or recipe.tokenizer_settings is not None:
        raise _not_whole("surgery" if recipe.surgery is not None else method.name)
    merged = [entry for part in recipe.parts for entry in part.merged(method)]
    for entry in merged if sees else ():
        (entry.data or recipe.data or DataSource()).require(label(entry.model))
    _require_distinct(recipe, merged)


def _require_distinct(recipe: Recipe, merged: Sequence[Input]) -> None:
    """What is kept beside a merge is called after its models."""
    names = [label(entry.model) for entry in merged]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None and (recipe.surgery is not None or recipe.method.beside):
        raise InvalidConfig(f"{twice} is listed twice.", hint="Each model has one head or expert: list it once.")


def _not_whole(what: str) -> InvalidConfig:
    return InvalidConfig(
        f"{what} takes whole models on disk, with one tokenizer, in no other recipe.",
        hint="Write slices, inner merges or another vocabulary first, by a merge of their own.",
    )


def _module_scopes(recipe: Recipe) -> list[Scope]:
    return [scope for part in recipe.parts for scope in part.scopes]
