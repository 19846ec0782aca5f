"""Which units of a network can change places without changing what it computes: Llama-type models and plain MLPs."""

import re
from collections.abc import Sequence
from itertools import pairwise

import torch

from kinship.errors import InvalidConfig, UnsupportedCheckpoint
from merging.rebasin.matching import Slot, Symmetry, Tensors

# What lies along each axis of a module's weight; a bias has the first axis alone. None: cannot change places.
_AXES: dict[str, tuple[str | None, ...]] = {
    "embed_tokens": (None, "residual"),
    "norm": ("residual",),
    "lm_head": (None, "residual"),
    "self_attn.q_proj": ("heads", "residual"),
    "self_attn.k_proj": ("groups", "residual"),
    "self_attn.v_proj": ("groups", "residual"),
    "self_attn.o_proj": ("residual", "heads"),
    "self_attn.q_norm": (None,),
    "self_attn.k_norm": (None,),
    "mlp.gate_proj": ("hidden", "residual"),
    "mlp.up_proj": ("hidden", "residual"),
    "mlp.down_proj": ("residual", "hidden"),
    "input_layernorm": ("residual",),
    "post_attention_layernorm": ("residual",),
    "pre_feedforward_layernorm": ("residual",),
    "post_feedforward_layernorm": ("residual",),
}
_KNOWN = "Alignment knows models of q, k, v, o, gate, up and down projections and RMS norms."
_NAME = re.compile(r"(?:model\.)?(?P<layer>layers\.\d+\.)?(?P<module>(?:self_attn\.|mlp\.)?\w+)\.(?:weight|bias)")


def mlp_symmetries(tensors: Tensors, layers: Sequence[str]) -> list[Symmetry]:
    """Those of linear ``layers``, by module name from input to output, with elementwise functions between them.

    Weights are (out, in); biases may be missing. The units of every layer but the last can change places.

    >>> import torch
    >>> [s.units for s in mlp_symmetries({"0.weight": torch.ones(5, 2), "2.weight": torch.ones(3, 5)}, ["0", "2"])]
    [5]
    """
    found = []
    for layer, after in pairwise(layers):
        slots = [Slot(f"{layer}.weight", 0), Slot(f"{layer}.bias", 0), Slot(f"{after}.weight", 1)]
        units = tensors[f"{layer}.weight"].shape[0]
        found.append(Symmetry(layer, units, tuple(slot for slot in slots if slot.tensor in tensors)))
    return found


def llama_symmetries(tensors: Tensors, heads: int, kv_heads: int, residual: bool = True) -> list[Symmetry]:
    """Those of a Llama-type model (Llama, Mistral, Qwen2, Qwen3, Gemma): inputs first, as `align` likes them.

    ``residual``: the channels that all blocks read and write, through embeddings, norms and head; leave it out for
    models that share them, and where permuting the embeddings is not wanted. ``layers.N.attention``: the groups of
    query heads that share keys and values, and the heads within a group. ``layers.N.mlp``: hidden units. Left out are
    the exchanges of channels within a head, which rotary embeddings forbid for queries and keys, and scalings.

    ``heads``, ``kv_heads``: num_attention_heads and num_key_value_heads of the config. Raises `UnsupportedCheckpoint`
    for a tensor that no such model has, `InvalidConfig` where the numbers of heads do not fit.
    """
    if heads % kv_heads:
        raise InvalidConfig(f"{heads} attention heads cannot share {kv_heads} key-value heads evenly.")
    slots: dict[str, list[Slot]] = {}
    sizes: dict[str, int] = {}
    for name, tensor in tensors.items():
        if name.endswith("rotary_emb.inv_freq"):
            continue
        match = _NAME.fullmatch(name)
        axes = _AXES.get(match["module"], ()) if match else ()
        fits = tensor.dim() == len(axes) or (name.endswith(".bias") and tensor.dim() == 1)
        if match is None or not fits or not _fits_head(name, tensor, tensors, heads):
            raise UnsupportedCheckpoint(
                f"Tensor {name!r} of shape {tuple(tensor.shape)} is none of a Llama-type model's.",
                hint=_KNOWN,
            )
        for axis, kind in enumerate(axes[: tensor.dim()]):
            if kind is not None:
                place = kind if kind == "residual" else f"{match['layer'] or ''}{kind}"
                units = {"heads": heads, "groups": kv_heads}.get(kind, tensor.shape[axis])
                slots.setdefault(place, []).append(Slot(name, axis, _width(name, tensor.shape[axis], units)))
                sizes[place] = units
    found = []
    if residual and "residual" in slots:
        found.append(Symmetry("residual", sizes["residual"], tuple(slots["residual"])))
    for layer in sorted({place.rpartition(".")[0] for place in slots} - {""}, key=lambda name: int(name[7:])):
        lacking = [kind for kind in ("groups", "heads", "hidden") if f"{layer}.{kind}" not in slots]
        if lacking:
            raise UnsupportedCheckpoint(
                f"{layer} has no projections of {' and '.join(lacking)}, as a Llama-type model has.", hint=_KNOWN
            )
        groups, queries, hidden = (tuple(slots[f"{layer}.{kind}"]) for kind in ("groups", "heads", "hidden"))
        found.append(Symmetry(f"{layer}.attention", kv_heads, groups, heads // kv_heads, queries))
        found.append(Symmetry(f"{layer}.mlp", sizes[f"{layer}.hidden"], hidden))
    return found


def _width(name: str, size: int, units: int) -> int:
    if size % units:
        raise InvalidConfig(
            f"Tensor {name!r} has {size} rows or columns, which {units} heads cannot share evenly.",
            hint="Take num_attention_heads and num_key_value_heads from the model's config.json.",
        )
    return size // units


def _fits_head(name: str, norm: torch.Tensor, tensors: Tensors, heads: int) -> bool:
    """False for a norm across heads (OLMo 2): it has a weight for each head's channel, which stays with its head."""
    queries = re.sub(r"self_attn\.[qk]_norm", "self_attn.q_proj", name)
    return queries == name or queries not in tensors or len(norm) * heads == len(tensors[queries])
