"""The config.json of a merge: the template's, with dtype, number of layers and lists of layers as they are now."""

from collections.abc import Mapping
from typing import Any

from kinship.errors import MismatchedModels

_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_INNER = "text_config"  # of models of text and images


def with_dtype(config: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """``config`` that says ``dtype``, under the key that it uses.

    >>> with_dtype({"torch_dtype": "float32"}, "bfloat16")
    {'torch_dtype': 'bfloat16'}
    """
    return dict(config) | {"torch_dtype" if "torch_dtype" in config else "dtype": dtype}


def with_vocabulary(config: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """``config`` of a model whose embeddings have so many rows; unchanged where it says no number of them.

    >>> with_vocabulary({"text_config": {"vocab_size": 8}}, 9)
    {'text_config': {'vocab_size': 9}}
    """
    inner = config.get(_INNER)
    if isinstance(inner, Mapping):
        config = dict(config) | {_INNER: with_vocabulary(inner, rows)}
    return dict(config) | ({"vocab_size": rows} if "vocab_size" in config else {})


def with_layers(config: Mapping[str, Any], layers: list[int]) -> dict[str, Any]:
    """``config`` of a model whose layers were those numbered ``layers`` in the model that it is of.

    Lists with an entry a layer (``layer_types``) follow. Raises `MismatchedModels` where no number of layers is given.

    >>> with_layers({"num_hidden_layers": 2, "layer_types": ["full", "sliding"]}, [0, 1, 1])
    {'num_hidden_layers': 3, 'layer_types': ['full', 'sliding', 'sliding']}
    """
    key = next((key for key in _COUNTS if key in config), None)
    if key is None:
        inner = config.get(_INNER)
        if isinstance(inner, Mapping):
            return dict(config) | {_INNER: with_layers(inner, layers)}
        raise MismatchedModels(
            f"config.json gives no number of layers ({', '.join(_COUNTS)}), which slices change.",
            hint="Add it, or merge the models whole.",
        )
    before = config[key]
    found = dict(config) | {key: len(layers)}
    for name, value in config.items():
        if "layer" in name and isinstance(value, list) and len(value) == before:
            found[name] = [value[index] for index in layers if index < before]
    return found
