"""What a config claims, compared with what the files hold, before anything is made of it."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.errors import MalformedCheckpoint

# Counts of layers, each of which holds some tensor; models that share them (ALBERT) have few tensors and few layers.
_LAYERS = re.compile(r"(num_|n_)?(\w+_)?(layers?|blocks?|depth)")
_SIZES = re.compile(
    r".*(vocab_size|hidden_size|intermediate_size|_dim|n_embd|n_inner|d_model|d_ff|d_kv|heads|experts|n_head)"
)
SPARE_LAYERS, SPARE_ELEMENTS = 1_000, 1 << 20


def require_held(model: Checkpoint) -> None:
    """Raise `MalformedCheckpoint` where the config of ``model`` counts more layers than its files could hold, or gives
    a size that is more than all their elements: making such a model would take all memory, or for ever.
    """
    elements = sum(entry.count for entry in model.tensors.values())
    limits = ((_LAYERS, len(model.tensors) + SPARE_LAYERS, "tensors"), (_SIZES, elements + SPARE_ELEMENTS, "elements"))
    for key, value in _numbers(model.config):
        for pattern, limit, unit in limits:
            if value > limit and pattern.fullmatch(key):
                held = len(model.tensors) if unit == "tensors" else elements
                raise MalformedCheckpoint(
                    f"{model.path}: config.json says {key}: {_short(value)}, but the files hold {held} {unit}.",
                    hint="The config is of another model, or damaged: save the model again.",
                )


def _numbers(content: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Every number in ``content``, at any depth of mappings, by its key."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _numbers(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            yield key, value


def _short(value: int) -> str:
    return str(value) if value < 10**18 else f"a number of {len(str(value))} digits" if value < 10**4000 else "more"
