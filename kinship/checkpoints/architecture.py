"""What transformers makes of a checkpoint: which parameter each tensor of its files becomes, and which ones it ignores.

Names in a file are not names of parameters: `from_pretrained` renames (`embed_out` of Pythia), adds and takes away
prefixes (`h.0` of the Hub's gpt2, vision-language models), fuses what lies apart (the experts of Mixtral), and passes
over buffers that older versions stored. The tables are transformers' own; a model on the meta device, without memory,
tells its parameters. Importing this module imports neither torch nor transformers; asking does.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cached_property, lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

from kinship.checkpoints.sizes import require_held

if TYPE_CHECKING:
    import torch

    from kinship.checkpoints.checkpoint import Checkpoint

# Buffers that checkpoints have carried and transformers computes by itself: frequencies, causal masks, positions.
_BUFFER = re.compile(
    r"(.+\.)?(rotary_emb\.inv_freq|rotary_pos_emb\.inv_freq|attn\.(masked_)?bias|attention\.(masked_)?bias"
    r"|attn\.attention\.(masked_)?bias|position_ids|embeddings\.token_type_ids)"
)

# Where configs of several models have that of the one that reads and writes.
_TEXT_PARTS = ("text_config", "decoder", "generator", "text_encoder")


class Place(NamedTuple):
    """Where a tensor of a file goes: to ``parameter``, whole, or as a part of it by the conversion ``pattern``.

    ``name``: the tensor's name in the form that transformers renames files to, whichever form its file has; equal for
    equal tensors of two files.
    """

    parameter: str
    pattern: str | None
    name: str


class Architecture:
    """The names of a transformers ``model``, on whatever device it is; no weight is looked at.

    larger: makes the same model with one more token; None where it is not known how.
    """

    def __init__(self, model: Any, larger: Any = None) -> None:
        self.model = model
        self._larger = larger
        self.parameters: dict[str, tuple[int, ...]] = {
            name: tuple(tensor.shape) for name, tensor in model.state_dict().items()
        }
        conversions = _conversions(model)
        self._renamings = [each for each in conversions if not hasattr(each, "operations")]
        self._converters = [each for each in conversions if hasattr(each, "operations")]
        self._by_pattern = {pattern: each for each in self._converters for pattern in each.source_patterns}
        self._known: dict[str, Place | None] = {}

    def place(self, name: str) -> Place | None:
        """Where the tensor ``name`` of a file goes; None where transformers passes over it."""
        if name not in self._known:
            self._known[name] = self._place(name)
        return self._known[name]

    def places(self, names: Iterable[str]) -> dict[str, Place]:
        """Where each of ``names`` goes, without those that transformers passes over."""
        return {name: place for name in names if (place := self.place(name)) is not None}

    def ignores(self, name: str) -> bool:
        """Whether a tensor of this name is one that transformers passes over in silence."""
        patterns = getattr(self.model, "_keys_to_ignore_on_load_unexpected", None) or ()
        return is_buffer(name) or any(re.search(pattern, name) for pattern in patterns)

    def missing(self, names: Iterable[str]) -> list[str]:
        """Parameters that a file with the tensors ``names`` leaves without a value, tied ones aside."""
        places = self.places(names)
        parts = Counter((place.parameter, place.pattern) for place in places.values())
        lacking = {place.parameter for place in places.values() if not self._whole(place, parts)}
        found = {target for place in places.values() for target in self._targets(place)} - lacking
        for one, other in self.tied.items():
            if one in found or other in found:
                found |= {one, other}
        buffers = {name for name, _ in self.model.named_buffers()}
        return sorted(name for name in self.parameters if name not in found and name not in buffers)

    @property
    def tied(self) -> dict[str, str]:
        """Parameters that are others again, with those others."""
        return dict(getattr(self.model, "all_tied_weights_keys", None) or {})

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """The dimension with an entry for each token, of every parameter and buffer that has one; nothing if not known.

        That is what grows in a model with a token more: embeddings, heads and their biases, whatever they are called.
        """
        try:
            model = self._larger() if self._larger is not None else None
        except Exception:  # a config that takes no other number of tokens
            return {}
        grown = {} if model is None else {name: tuple(value.shape) for name, value in model.state_dict().items()}
        pairs = {name: zip(shape, grown.get(name, shape), strict=False) for name, shape in self.parameters.items()}
        dimensions = {name: [size != other for size, other in both] for name, both in pairs.items()}
        return {name: grows.index(True) for name, grows in dimensions.items() if any(grows)}

    def tensor_of(self, parameter: str, names: Iterable[str]) -> str | None:
        """The one of the tensors ``names`` of a file that ``parameter`` is, whole; None where it is none of them."""
        return next((name for name in names if self.place(name) == Place(parameter, None, parameter)), None)

    def converted(
        self, tensors: "Iterable[tuple[str, torch.Tensor]]", names: Sequence[str]
    ) -> "Iterator[tuple[str, torch.Tensor]]":
        """Parameters from ``tensors`` of files, whose names are ``names``, as they come to be complete.

        Only tensors of parameters that are not complete yet are kept. Raises what transformers raises where parts do
        not fit together.
        """
        places = self.places(names)
        waiting: dict[str, dict[str, torch.Tensor]] = {}
        wanted: dict[str, set[str]] = {}
        for name, place in places.items():
            wanted.setdefault(place.parameter, set()).add(name)
        for name, tensor in tensors:
            if name not in places:
                continue
            parameter, pattern, _ = places[name]
            if pattern is None:
                yield parameter, tensor
                continue
            parts = waiting.setdefault(parameter, {})
            parts[name] = tensor
            if parts.keys() == wanted[parameter]:
                yield from self._fused(parameter, waiting.pop(parameter), places)

    def pieces_of(self, parameter: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int] | None:
        """Where in ``parameter`` each of the tensors begins that it is fused of, in elements; None where they do not
        lie in it as they are.

        shapes: of those tensors, by their `Place.name`; experts, stacked along the first dimension after what belongs
        to one was laid one below the other.
        """
        from transformers.core_model_loading import dot_natural_key

        places = {name: place for name in shapes if (place := self.place(name)) and place.parameter == parameter}
        patterns = {str(place.pattern) for place in places.values()}
        if len(places) != len(shapes) or not patterns <= self._by_pattern.keys():
            return None
        converter = self._by_pattern[min(patterns)]
        steps = [(type(step).__name__, getattr(step, "dim", None)) for step in converter.operations]
        if steps not in ([("MergeModulelist", 0)], [("MergeModulelist", 0), ("Concatenate", 1)]):
            return None
        rows = [
            sorted((name for name in shapes if places[name].pattern == pattern), key=dot_natural_key)
            for pattern in converter.source_patterns
        ]
        found, first = {}, 0
        for expert in zip(*rows, strict=True):
            for name in expert:
                found[name] = first
                first += math.prod(shapes[name])
        return found

    def _fused(
        self, parameter: str, parts: "Mapping[str, torch.Tensor]", places: Mapping[str, Place]
    ) -> "Iterator[tuple[str, torch.Tensor]]":
        from transformers.core_model_loading import dot_natural_key

        first = next(iter(parts))
        converter = deepcopy(self._by_pattern[str(places[first].pattern)])
        for name in sorted(parts, key=dot_natural_key):
            converter.add_tensor(parameter, name, places[name].pattern, parts[name])
        for target, value in converter.convert(parameter, model=self.model, config=self.model.config).items():
            yield target, value[0] if isinstance(value, list) else value

    def _whole(self, place: Place, parts: Mapping[tuple[str, str | None], int]) -> bool:
        """Whether a parameter that is fused of as many tensors as it is long, by each pattern, has them all."""
        converter = self._by_pattern.get(str(place.pattern))
        if converter is None or not getattr(converter, "operations", None):
            return True
        first = converter.operations[0]
        if type(first).__name__ != "MergeModulelist" or getattr(first, "dim", None) != 0:
            return True
        count = self.parameters[place.parameter][0]
        return all(parts.get((place.parameter, pattern)) == count for pattern in converter.source_patterns)

    def _targets(self, place: Place) -> list[str]:
        """The parameters that a conversion makes: some make several of one tensor."""
        if place.pattern is None:
            return [place.parameter]
        first, *others = self._by_pattern[place.pattern].target_patterns
        return [place.parameter, *(place.parameter.replace(first, other) for other in others)]

    def _place(self, name: str) -> Place | None:
        renamed, pattern = self._renamed(name, self._converters)
        if renamed not in self.parameters and name in self.parameters:
            renamed, pattern = name, None
        if renamed not in self.parameters:
            return None
        if pattern is None:
            return Place(renamed, None, renamed)
        # As by renamings alone: the conversion's own pattern stands for many names.
        apart, prefix = self._renamed(name, [])[0], f"{self.model.base_model_prefix}."
        if renamed.startswith(prefix) and not apart.startswith(prefix):
            apart = prefix + apart
        return Place(renamed, pattern, apart)

    def _renamed(self, name: str, converters: Sequence[Any]) -> tuple[str, str | None]:
        """The name after transformers' renamings and ``converters``, and the pattern of the converter that applied."""
        pattern = None
        for renaming in self._renamings:
            name, _ = renaming.rename_source_key(name)
        for converter in converters:
            name, pattern = converter.rename_source_key(name)
            if pattern is not None:
                break
        prefix = f"{self.model.base_model_prefix}."
        if prefix != "." and name.startswith(prefix) and name.removeprefix(prefix) in self.parameters:
            name = name.removeprefix(prefix)
        elif prefix != "." and prefix + name in self.parameters:
            name = prefix + name
        return name, pattern


def is_buffer(name: str) -> bool:
    """Whether a tensor of this name is a buffer that older versions stored and nobody reads.

    >>> [is_buffer(name) for name in ("h.0.attn.bias", "h.0.attn.c_attn.bias", "model.rotary_emb.inv_freq")]
    [True, False, True]
    """
    return bool(_BUFFER.fullmatch(name))


def architecture_of(checkpoint: "Checkpoint") -> Architecture | None:
    """What transformers makes of ``checkpoint``, by its config; None where transformers alone cannot tell.

    That is: without a config that names a class, or with code of its own, which is not run. Cost: seconds for the
    import of transformers, then milliseconds a model class; no memory for weights. Raises `MalformedCheckpoint` for a
    config that claims more than the files hold.
    """
    config = checkpoint.config
    if not config.get("model_type") or not config.get("architectures"):
        return None
    require_held(checkpoint)
    return _architecture(json.dumps(checkpoint.config, sort_keys=True))


@lru_cache(maxsize=8)
def _architecture(config: str) -> Architecture | None:
    import torch
    import transformers

    try:
        with TemporaryDirectory() as folder:  # what is in a file is more than the arguments of a class: infinities
            Path(folder, "config.json").write_text(config, encoding="utf-8")
            settings = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception:  # a config that transformers does not know, or not like that
        return None
    for make in _classes(settings, settings.architectures or []):
        try:
            with torch.device("meta"):
                return Architecture(make(settings), partial(_larger, make, settings))
        except Exception:  # a class that does not take this config, or asks for values at once
            continue
    return None


def _larger(make: Callable[[Any], Any], settings: Any) -> Any:
    """The model that ``make`` makes of ``settings`` with one more token; None where they count no tokens."""
    import torch

    settings = deepcopy(settings)
    parts = [settings, *(getattr(settings, name, None) for name in _TEXT_PARTS)]
    counting = [part for part in parts if isinstance(getattr(part, "vocab_size", None), int)]
    for part in counting:
        part.vocab_size += 1
    with torch.device("meta"):
        return make(settings) if counting else None


def _classes(settings: Any, named: Sequence[str]) -> Iterator[Callable[[Any], Any]]:
    """Ways to build the model: as its config names it, else as a causal language model, else its body."""
    import transformers

    for name in named:
        known = getattr(transformers, name, None)
        if known is not None and hasattr(known, "_from_config"):
            yield known._from_config
    # Unset, transformers would ask on the terminal.
    yield partial(transformers.AutoModelForCausalLM.from_config, trust_remote_code=False)
    yield partial(transformers.AutoModel.from_config, trust_remote_code=False)


def _conversions(model: Any) -> list[Any]:
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
    except ImportError:  # before version 5 the names were those of the files
        return []
    return list(get_model_conversion_mapping(model))
