"""Which dense models become which mixtures of experts of transformers: configs, and names of tensors in files."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.errors import InvalidConfig, UnsupportedCheckpoint

_MLP = re.compile(r"(?P<layer>(?:.+\.)?layers\.\d+\.)mlp\.(?P<part>gate|up|down)_proj\.weight")

# What the mixtures' attention and MLPs have no place for.
_BIASES = ("attention_bias", "mlp_bias")


@dataclass(frozen=True)
class Mixture:
    """One architecture of mixtures. dense: the model types that become it. block: what its MLPs are called in a layer;
    parts: their matrices. shared: what the expert is called that every token goes through, of those that have one.
    """

    name: str
    classname: str
    dense: tuple[str, ...]
    block: str
    parts: Mapping[str, str]
    shared: str | None = None

    def expert(self, layer: str, number: int, part: str) -> str:
        """The name of a matrix (``gate``, ``up`` or ``down``) of an expert."""
        return f"{layer}{self.block}.experts.{number}.{self.parts[part]}.weight"

    def config(self, dense: Mapping[str, Any], experts: int, per_token: int, width: int) -> dict[str, Any]:
        """The mixture's config, of a base that has the config ``dense``. width: of a shared expert."""
        kept = {key: value for key, value in dense.items() if key not in {*_BIASES, "pretraining_tp"}}
        found = kept | {"model_type": self.name, "architectures": [self.classname], "num_experts_per_tok": per_token}
        if self.name == "mixtral":
            return found | {"num_local_experts": experts}
        found |= {
            "num_experts": experts,
            "moe_intermediate_size": dense["intermediate_size"],
            "norm_topk_prob": True,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        }
        return found | ({"shared_expert_intermediate_size": width} if self.shared else {})


_PARTS = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
MIXTURES = (
    Mixture(
        "mixtral",
        "MixtralForCausalLM",
        ("llama", "mistral"),
        "block_sparse_moe",
        {"gate": "w1", "up": "w3", "down": "w2"},
    ),
    Mixture("qwen2_moe", "Qwen2MoeForCausalLM", ("qwen2",), "mlp", _PARTS, shared="shared_expert"),
    Mixture("qwen3_moe", "Qwen3MoeForCausalLM", ("qwen3",), "mlp", _PARTS),
)
_SHORT = {"qwen": "qwen2_moe", "qwen3": "qwen3_moe"}


def mixture_of(base: Checkpoint, wanted: str | None, shared: bool) -> Mixture:
    """The mixture that ``base`` becomes, which is the one ``wanted``, if any is.

    Raises `UnsupportedCheckpoint` for models that become none, `InvalidConfig` where another one is wanted, or an
    expert is ``shared`` in one that has none.
    """
    kind = base.config.get("model_type")
    found = next((mixture for mixture in MIXTURES if kind in mixture.dense), None)
    biased = next((key for key in _BIASES if base.config.get(key)), None)
    if found is None or biased is not None:
        raise UnsupportedCheckpoint(
            f"{base.id} is a {kind or 'model without config.json'}{f' with {biased}' if biased else ''}, of which no "
            "mixture of experts is made.",
            hint=f"Mixtures are made of {', '.join(dense for mixture in MIXTURES for dense in mixture.dense)} models.",
        )
    if wanted is not None and _SHORT.get(wanted, wanted) != found.name:
        raise InvalidConfig(
            f"architecture is {wanted}, but {base.id}, a {kind}, becomes a {found.name}.",
            hint="Leave architecture out.",
        )
    if shared and found.shared is None:
        raise InvalidConfig(
            f"A {found.name} has no shared experts.", hint="List it among the experts; only qwen2_moe has shared ones."
        )
    return found


def mlp_part(name: str) -> tuple[str, str] | None:
    """Layer and part (``gate``, ``up``, ``down``) of a dense MLP's matrix by its name; None for other tensors.

    >>> mlp_part("model.layers.3.mlp.up_proj.weight"), mlp_part("model.norm.weight")
    (('model.layers.3.', 'up'), None)
    """
    match = _MLP.fullmatch(name)
    return (match["layer"], match["part"]) if match else None
