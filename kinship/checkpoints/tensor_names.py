"""Which layer of which stack and which kind of module a tensor belongs to, by its name; and groups by these."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

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


class Layer(NamedTuple):
    """A layer of a stack, which is named by what stands before the layer's number. Models have several stacks where
    they have an encoder and a decoder, or see and read.
    """

    stack: str
    number: int


def layer_of(name: str) -> Layer | None:
    """The layer a tensor belongs to, by its name.

    >>> layer_of("model.decoder.layers.12.mlp.up_proj.weight")
    Layer(stack='model.decoder.layers', number=12)
    """
    match = _LAYER.search(name)
    return Layer(name[: match.start(1) - 1], int(match[1])) if match else None


def layer_index(name: str) -> int | None:
    """The place in its stack of the layer a tensor belongs to, by its name.

    >>> layer_index("model.layers.12.mlp.up_proj.weight"), layer_index("lm_head.weight")
    (12, None)
    """
    layer = layer_of(name)
    return layer.number if layer else None


def stack_labels(names: Iterable[str]) -> dict[str, str]:
    """What to call each of the stacks that tensor ``names`` speak of: by what tells them apart; nothing for one alone.

    >>> stack_labels(["model.encoder.layers.0.fc1.weight", "model.decoder.layers.0.fc1.weight"])
    {'model.decoder.layers': 'decoder ', 'model.encoder.layers': 'encoder '}
    """
    stacks = sorted({layer.stack for name in names if (layer := layer_of(name)) is not None})
    if len(stacks) < 2:
        return dict.fromkeys(stacks, "")
    parts = [stack.split(".") for stack in stacks]
    shared = next(place for place in range(100) if len({tuple(part[place : place + 1]) for part in parts}) > 1)
    short = [".".join(part[shared : shared + 1]) for part in parts]
    chosen = short if len(set(short)) == len(short) else [".".join(part[shared:]) for part in parts]
    return {stack: f"{label} " for stack, label in zip(stacks, chosen, strict=True)}


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

    labels = np.array(_layer_labels(names) if by == "layer" else [GROUPINGS[by](name) for name in names])
    return {label: labels == label for label in sorted(set(labels.tolist()), key=_natural)}


def _layer_labels(names: Sequence[str]) -> list[str]:
    """As `layer_label`, and where there are several stacks each with its name."""
    stacks = stack_labels(names)
    return [
        f"{stacks[layer.stack]}{layer_label(name)}" if (layer := layer_of(name)) is not None else layer_label(name)
        for name in names
    ]


def _natural(label: str) -> list[tuple[bool, int, str]]:
    """Sort key by which layer 10 comes after layer 9, and embeddings before all layers."""
    parts = re.split(r"(\d+)", label)
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]
