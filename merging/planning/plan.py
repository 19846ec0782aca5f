"""What a merge will do, tensor by tensor, from recipe and headers alone; whatever can be refused is refused here."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.dtypes import BY_NAME, DType
from kinship.checkpoints.own_heads import with_own_heads
from kinship.checkpoints.tensor_names import layer_index
from kinship.checkpoints.tied import tied_heads
from kinship.checkpoints.token_rows import have_token_rows
from kinship.errors import MismatchedModels, about
from merging.kernels.rounding import promoted
from merging.planning.chat import chat_template_files
from merging.planning.config import with_dtype, with_layers, with_vocabulary
from merging.planning.frames import frame_files, frame_model, with_special_ids
from merging.planning.graph import Leaf, MergeNode, Node, Same, Spec, coefficients, label_of
from merging.planning.layers import is_before_layers, take_layers
from merging.planning.vocabulary import align_vocabularies
from merging.recipe.parameters import Layers, Scope, values_for, warn_of_filters
from merging.recipe.schema import Input, Part, Recipe, Source, label
from merging.registry import MeasuredOf, MergeMethod

if TYPE_CHECKING:
    from merging.mixture.recipe import AnyRecipe

Tensors = dict[str, Node]


@dataclass(frozen=True)
class TensorPlan:
    """One tensor of the result. ``dtype`` is that it is written in."""

    name: str
    dtype: DType
    node: Node

    @property
    def spec(self) -> Spec:
        """Name, dtype and shape."""
        return Spec(self.name, self.dtype, self.node.shape)

    @property
    def kind(self) -> str:
        """The method at the root, or ``copy``."""
        return self.node.method.name if isinstance(self.node, MergeNode) else "copy"

    @property
    def is_random(self) -> bool:
        """Whether it depends on the seed."""
        return _is_random(self.node)

    @property
    def bytes_read(self) -> int:
        """Bytes of its leaves, twice where inner products are taken first."""
        once = sum(leaf.entry.nbytes for leaf in self.node.leaves)
        twice = isinstance(self.node, MergeNode) and self.node.in_span and self.node.needs_products
        return 2 * once if twice else once


@dataclass(frozen=True)
class MergePlan:
    """A checked merge: its ``tensors`` in order, the ``models`` it reads, and the one that lends config and tokenizer.

    config: what ``config.json`` will hold; empty for bare files. rounding: the dtype that inputs are rounded to before
    anything else. tokenizer: the model whose tokenizer files are taken; ``files`` (texts by name) replace some of them.
    statistics: what was measured of the models for a tensor, once it was.
    """

    recipe: "AnyRecipe"
    tensors: tuple[TensorPlan, ...]
    models: tuple[Checkpoint, ...]
    template: Checkpoint
    config: dict[str, Any]
    rounding: DType | None
    tokenizer: Checkpoint
    files: Mapping[str, str]
    statistics: MeasuredOf | None = None

    @property
    def specs(self) -> list[Spec]:
        """Names, dtypes and shapes of the result."""
        return [tensor.spec for tensor in self.tensors]

    @property
    def bytes_read(self) -> int:
        """Bytes of weights to read."""
        return sum(tensor.bytes_read for tensor in self.tensors)

    @property
    def bytes_written(self) -> int:
        """Bytes of weights to write."""
        return sum(spec.nbytes for spec in self.specs)

    @cached_property
    def by_method(self) -> dict[str, int]:
        """Number of tensors by the method that makes them; ``copy`` for buffers of integers."""
        return dict(sorted(Counter(tensor.kind for tensor in self.tensors).items()))


def plan_merge(recipe: Recipe, models: Mapping[str, Checkpoint]) -> MergePlan:
    """The plan of ``recipe`` over ``models`` by reference.

    Raises `MismatchedModels` for models that cannot be merged, and `InvalidConfig` for parameters without a value.
    """
    models = dict(zip(models, with_own_heads(list(models.values())), strict=True))
    template = models[recipe.references[0]]
    vocabulary = recipe.tokenizer_settings
    _require_one_architecture(models.values())
    frame = tokenizer = frame_model(recipe, models)
    config, files = with_special_ids(template.config, frame.config) if template.config else {}, {}
    if vocabulary is not None:
        base = recipe.base_model if isinstance(recipe.base_model, str) else None
        aligned = align_vocabularies(vocabulary, {key: models[key] for key in recipe.references}, base)
        models, tokenizer, files = aligned.models, aligned.tokenizer, aligned.files
        config = with_vocabulary(config, aligned.rows)
    files |= frame_files(frame, tokenizer)
    if recipe.chat_template is not None:
        files |= chat_template_files(recipe.chat_template, list(models.values()))
    opened = tuple(models[reference] for reference in recipe.references)
    rounding = BY_NAME[recipe.dtype] if recipe.dtype else None
    wanted = BY_NAME[recipe.out_dtype] if recipe.out_dtype else rounding
    tensors = []
    for name, node in sorted(_Expansion(models, opened).of(recipe).items()):
        stored = [leaf.entry.dtype for leaf in node.leaves]
        tensors.append(TensorPlan(name, stored[0] if isinstance(node, Same) else wanted or promoted(stored), node))
        if isinstance(node, MergeNode) and node.in_span and not node.needs_products:
            with about(label_of(name, node)):
                coefficients(node, node.leaves, None)  # raises what is wrong with the parameters
    config = _config(config, recipe, opened[0], tensors) if config else {}
    return MergePlan(recipe, tuple(tensors), opened, template, config, rounding, tokenizer, files)


class _Expansion:
    """From recipes to the tensors they make. Heads that are the embedding again in every model are none of them."""

    def __init__(self, models: Mapping[str, Checkpoint], opened: Sequence[Checkpoint]) -> None:
        self._models = models
        self._tied = tied_heads(opened)
        self._dropped = {name for name in self._tied if all(_ties(model, name) for model in opened)}

    def of(self, model: str | Recipe, place: str = "") -> Tensors:
        """The tensors of a model, or those that a recipe makes."""
        if isinstance(model, Recipe):
            return self._merged(model, place)
        checkpoint = self._models[model]
        return {name: Leaf(checkpoint, name) for name in checkpoint.tensors if name not in self._dropped}

    def _merged(self, recipe: Recipe, place: str) -> Tensors:
        found: Tensors = {}
        outside: list[Tensors] = []
        start = 0
        for number, part in enumerate(recipe.parts):
            group = self._group(recipe.method, part, start, f"{place}/{number}")
            names = list(group.inputs[0])
            layers = Layers.of(names) if not recipe.sliced else None
            count = part.layers or 0
            for name in names:
                index = layer_index(name)
                if index is not None:
                    position = layers.position(name) if layers else (index - start) / (count - 1) if count > 1 else 1.0
                    found[name] = group.merge(name, position)
            outside.append({name: group.merge(name, 0.0) for name in names if layer_index(name) is None})
            start += count
        found |= {name: node for name, node in outside[0].items() if is_before_layers(name)}
        warn_of_filters([scope for part in recipe.parts for scope in part.every_scope], found | outside[-1])
        return found | {name: node for name, node in outside[-1].items() if not is_before_layers(name)}

    def _group(self, method: MergeMethod, part: Part, start: int, place: str) -> "_Group":
        entries = part.merged(method)
        inputs = [self._taken(entry, start, f"{place}.{number}") for number, entry in enumerate(entries)]
        base = None
        if part.base is not None:
            listed = next((entry for entry in part.inputs if entry.model == part.base), part.inputs[0])
            base = self._taken(listed.model_copy(update={"model": part.base}), start, f"{place}.base")
        labels = [label(entry.model) for entry in entries]
        everyone = list(zip(labels, inputs, strict=True))
        self._require_alike([(label(part.base), base), *everyone] if part.base and base else everyone)
        scopes = [(name, (entry.parameters, *part.scopes)) for name, entry in zip(labels, entries, strict=True)]
        return _Group(method, inputs, base, scopes, place)

    def _taken(self, entry: Input, start: int, place: str) -> Tensors:
        tensors = self.of(entry.model, place)
        if isinstance(entry, Source):
            return take_layers(tensors, label(entry.model), *entry.layer_range, start)
        return tensors

    def _require_alike(self, inputs: Sequence[tuple[str, Tensors]]) -> None:
        """Raise `MismatchedModels` unless all hold the same tensors in the same shapes."""
        first, expected = inputs[0]
        for other, found in inputs[1:]:
            for name in sorted(expected.keys() ^ found.keys()):
                owner, lacking = (first, other) if name in expected else (other, first)
                raise MismatchedModels(
                    f"{owner} has the tensor {name!r}, {lacking} has not.",
                    hint=f"It is {self._tied[name]}; untie it there, or tie it in all models."
                    if name in self._tied
                    else "Models that are merged must be fine-tunes of one architecture.",
                )
            for name, node in expected.items():
                if found[name].shape != node.shape:
                    one_length = found[name].shape[1:] == node.shape[1:]
                    rows_differ = one_length and have_token_rows(node.leaves[0].model, [node.leaves[0].tensor])
                    raise MismatchedModels(
                        f"Tensor {name!r} has shape {list(found[name].shape)} in {other}, but {list(node.shape)} in "
                        f"{first}.",
                        hint="The vocabularies differ: say tokenizer_source: base, or union."
                        if rows_differ
                        else "Models that are merged must be fine-tunes of one architecture; leave this one out.",
                    )


@dataclass(frozen=True)
class _Group:
    """What is merged with each other, name by name."""

    method: MergeMethod
    inputs: Sequence[Tensors]
    base: Tensors | None
    scopes: Sequence[tuple[str, Sequence[Scope]]]
    place: str

    def merge(self, name: str, position: float) -> Node:
        inputs = tuple(tensors[name] for tensors in self.inputs)
        base = None if self.base is None else self.base[name]
        leaves = tuple(dict.fromkeys(leaf for node in (base, *inputs) if node is not None for leaf in node.leaves))
        floats = [leaf.entry.dtype.is_floating_point for leaf in leaves]
        if all(floats):
            values = values_for(self.method, self.scopes, name, position)
            return MergeNode(self.method, values, inputs, base, self.place)
        odd = next((leaf for leaf in leaves if leaf.entry.dtype != leaves[0].entry.dtype), None)
        if odd is not None:
            raise MismatchedModels(
                f"Tensor {name!r} is {odd.entry.dtype} in {odd.model.id}, but {leaves[0].entry.dtype} in "
                f"{leaves[0].model.id}; integers are copied, and must be alike.",
                hint="Save the models in one dtype.",
            )
        return Same(leaves)


def _ties(model: Checkpoint, head: str) -> bool:
    if head in model.tensors:
        return head in tied_heads([model])
    return model.config.get("tie_word_embeddings") is not False


def _is_random(node: Node) -> bool:
    if isinstance(node, Leaf):  # such as gates that are drawn
        return bool(getattr(node.model, "random", False))
    return isinstance(node, MergeNode) and (node.method.random or any(map(_is_random, node.operands)))


def _require_one_architecture(models: Iterable[Checkpoint]) -> None:
    kinds = {str(model.config["model_type"]): model for model in models if model.config.get("model_type")}
    if len(kinds) > 1:
        (kind, model), (other, second), *_ = kinds.items()
        raise MismatchedModels(
            f"{model.id} is a {kind} model, {second.id} a {other} model.",
            hint="Models that are merged must be fine-tunes of one architecture.",
        )


def _config(
    config: dict[str, Any], recipe: Recipe, template: Checkpoint, tensors: Sequence[TensorPlan]
) -> dict[str, Any]:
    """The template's ``config`` as it is for ``tensors``."""
    if _any_sliced(recipe):
        sources = {}
        for tensor in tensors:
            index = layer_index(tensor.name)
            if index is not None:
                own = [leaf for leaf in tensor.node.leaves if leaf.model is template]
                sources[index] = layer_index((own or tensor.node.leaves)[0].tensor) or 0
        config = with_layers(config, [sources[index] for index in sorted(sources)])
    dtypes = {tensor.dtype for tensor in tensors if tensor.dtype.is_floating_point}
    return with_dtype(config, dtypes.pop().name) if len(dtypes) == 1 else config


def _any_sliced(recipe: Recipe) -> bool:
    return recipe.sliced or any(_any_sliced(inner) for inner in recipe.nested)
