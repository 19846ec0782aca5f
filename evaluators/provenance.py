"""What config files say of a model's past, which decides nothing."""

from collections.abc import Mapping, Set
from typing import Any

PROVENANCE = frozenset({"_name_or_path", "name_or_path", "_commit_hash", "transformers_version"})
DTYPES = frozenset({"dtype", "torch_dtype"})
"""Keys for the dtype of the stored weights; a live model has the dtype it was asked for."""


def without(config: Mapping[str, Any], keys: Set[str]) -> dict[str, Any]:
    """``config`` without ``keys``, at any depth: multimodal models have configs within configs.

    >>> without({"hidden_size": 8, "dtype": "float16", "text_config": {"dtype": "float16"}}, DTYPES)
    {'hidden_size': 8, 'text_config': {}}
    """
    return {
        key: without(value, keys) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in keys
    }
