"""Which layer and which kind of module a tensor belongs to, by its name; and kinship by such groups."""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kinship.errors import InvalidConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d+)\.")

# Names of modules in common architectures, tried in this order.
_KINDS = (
    ("embeddings", r"embed|\bwte\b|\bwpe\b"),
    ("head", r"lm_head|embed_out|output_layer|classifier"),
    ("norms", r"norm|\bln_|layernorm"),
    ("attention qkv", r"qkv|query_key_value|c_attn"),
    ("attention q", r"q_proj|query\b|\bq\b|wq\b"),
    ("attention k", r"k_proj|key\b|\bk\b|wk\b"),
    ("attention v", r"v_proj|value\b|\bv\b|wv\b"),
    ("attention o", r"o_proj|out_proj|attn.*(c_proj|dense)|attention.*(dense|output)|wo\b"),
    ("mlp", r"mlp|feed_forward|ffn|fc\d|intermediate|experts|\bw[123]\b"),
)


def layer_index(name: str) -> int | None:
    """The layer a tensor belongs to, by its name.

    >>> layer_index("model.layers.12.mlp.up_proj.weight"), layer_index("lm_head.weight")
    (12, None)
    """
    match = _LAYER.search(name)
    return int(match[1]) if match else None


def layer_label(name: str) -> str:
    """A tensor's layer for people: its index, or the kind of module outside the layers.

    >>> layer_label("model.layers.3.mlp.up_proj.weight"), layer_label("model.embed_tokens.weight")
    ('layer 3', 'embeddings')
    """
    index = layer_index(name)
    return module_kind(name) if index is None else f"layer {index}"


def module_kind(name: str) -> str:
    """The kind of module a tensor belongs to: embeddings, head, norms, attention q/k/v/qkv/o, mlp or other.

    >>> module_kind("model.layers.3.self_attn.q_proj.weight"), module_kind("conv1.weight")
    ('attention q', 'other')
    """
    return next((kind for kind, pattern in _KINDS if re.search(pattern, name)), "other")


GROUPINGS: dict[str, Callable[[str], str]] = {
    "layer": layer_label,
    "module": module_kind,
    "tensor": lambda name: name,
}


def group_members(names: Sequence[str], by: str) -> "dict[str, NDArray[np.bool_]]":
    """Which of ``names`` are in each group, as masks; layers in their order, other groups by name.

    Raises `InvalidConfig` for an unknown grouping.

    >>> {label: mask.tolist() for label, mask in group_members(["h.1.mlp", "wte", "h.1.ln_1"], "layer").items()}
    {'embeddings': [False, True, False], 'layer 1': [True, False, True]}
    """
    if by not in GROUPINGS:
        raise InvalidConfig(f"Tensors cannot be grouped by {by!r}.", hint=f"Use one of: {', '.join(GROUPINGS)}.")
    import numpy as np  # here, so that the command line knows the groupings without it

    labels = np.array([GROUPINGS[by](name) for name in names])
    return {label: labels == label for label in sorted(set(labels.tolist()), key=_natural)}


def _natural(label: str) -> list[tuple[bool, int, str]]:
    """Sort key by which layer 10 comes after layer 9, and embeddings before all layers."""
    parts = re.split(r"(\d+)", label)
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]
