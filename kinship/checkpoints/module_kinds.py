"""Which kind of module a tensor belongs to: by the model that transformers makes of a checkpoint, else by its name."""

import re
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kinship.checkpoints.architecture import Architecture
    from kinship.checkpoints.checkpoint import Checkpoint

KindOf = Callable[[str], str]
"""The kind of module of a tensor by its name."""

OTHER = "other"

# Names that mean the same in every architecture that has them: a model of these alone need not be built.
_PLAIN = re.compile(
    r"model\.embed_tokens\.weight|lm_head\.weight|model\.norm\.weight|model\.layers\.\d+\.("
    r"self_attn\.(q|k|v|o|qkv)_proj\.(weight|bias)|mlp\.(gate|up|down|gate_up)_proj\.(weight|bias)"
    r"|(input|post_attention|(pre|post)_feedforward)_layernorm\.weight|self_attn\.[qk]_norm\.weight)"
)

# What classes of modules are called, tried in this order at each module from the tensor's own up to the model.
_CLASSES = (
    ("norms", re.compile(r"Norm")),
    ("embeddings", re.compile(r"Embed")),
    ("router", re.compile(r"Router|TopKGat")),
    ("experts", re.compile(r"Experts")),
    ("state space", re.compile(r"Mixer$|RecurrentBlock$|Rglru$")),
    ("linear attention", re.compile(r"DeltaNet|LinearAttention|LightningAttention")),
    ("attention", re.compile(r"Attention(?!.*(Layer|Block|Head)$)|Attn")),
    ("mlp", re.compile(r"MLP|Mlp|FeedForward|FFN|LayerFF$|Dense\w*Dense|Intermediate$|(?<!Self)Output$")),
    ("moe", re.compile(r"MoE|Moe\w*Block$")),
    ("projector", re.compile(r"Projector|Merger|Connector|Resampler")),
    ("head", re.compile(r"Pooler|Pooling|Classification|LMHead|PredictionHead|Predictions$")),
)
_CONVOLUTION = re.compile(r"Conv[123]d$|ConvLayer|ShortConv")
_CROSS = re.compile(r"cross|encoder_attn|encdec", re.IGNORECASE)
_SHARED = re.compile(r"shared_(expert|mlp)")
_PARTS = tuple(
    (part, re.compile(pattern, re.IGNORECASE))
    for part, pattern in (
        ("qkv", r"c_attn|query_key_value|\w*qkv\w*|in_proj(_weight|_bias)?"),
        ("kv", r"kv_\w+|key_value"),
        ("q", r"(to_)?(q|wq|query)(_(proj|lin|attn|a_proj|b_proj))?"),
        ("k", r"(to_)?(k|wk|key)(_(proj|lin))?"),
        ("v", r"(to_)?(v|wv|value)(_(proj|lin))?"),
        ("o", r"o|wo|(o|out|c)_(proj|lin)|dense|output|proj|to_out"),
    )
)

# Names of modules in common architectures, for files whose config names none, tried in this order.
_NAMES = tuple(
    (kind, re.compile(pattern, re.IGNORECASE))
    for kind, pattern in (
        ("position biases", r"relative_attention_bias"),
        ("head", r"lm_head|embed_out|output_layer|classifier|^cls\.|^(head|score)\."),
        ("norms", r"norm|\bln_"),
        ("embeddings", r"embed|\bwte\b|\bwpe\b|^shared\b"),
        ("router", r"(moe|mlp|feed_forward)\.(gate|router)\b|shared_expert_gate"),
        ("shared experts", r"shared_experts?\."),
        ("experts", r"experts"),
        ("state space", r"\b(mixer|mamba|ssm)\b"),
        ("mlp", r"DenseReluDense"),
        ("attention qkv", r"qkv|query_key_value|c_attn"),
        ("attention q", r"q_proj|query\b|\bq\b|wq\b"),
        ("attention k", r"k_proj|key\b|\bk\b|wk\b"),
        ("attention v", r"v_proj|value\b|\bv\b|wv\b"),
        ("attention o", r"o_proj|out_proj|attn.*(c_proj|dense)|attention.*(dense|output|\bo\b)|\bwo\b"),
        ("mlp", r"mlp|feed_forward|ffn|fc\d|intermediate|\boutput\.dense|\bw[123]\b"),
        ("projector", r"projector|\bproject_(in|out)\b|_projection\b"),
    )
)


def module_kind(name: str) -> str:
    """The kind of module a tensor belongs to, by its name alone: what is told of bare files.

    One of: embeddings, head, norms, attention q/k/v/qkv/o, mlp, experts, shared experts, router, state space, position
    biases, projector, other.

    >>> module_kind("model.layers.3.self_attn.q_proj.weight"), module_kind("conv1.weight")
    ('attention q', 'other')
    """
    return next((kind for kind, pattern in _NAMES if pattern.search(name)), OTHER)


class ModuleKinds:
    """The kinds of the modules of ``model``, by the names of its tensors: as `kind_in` where transformers knows it,
    else as `module_kind`.

    Cost: transformers is imported (seconds) for names that other architectures use in another sense.
    """

    def __init__(self, model: "Checkpoint") -> None:
        self._model = model

    def __call__(self, name: str) -> str:
        """The kind of the tensor ``name``."""
        if _PLAIN.fullmatch(name) or self._architecture is None:
            return module_kind(name)
        place = self._architecture.place(name)
        return module_kind(name) if place is None else kind_in(self._architecture.model, place.parameter)

    @cached_property
    def _architecture(self) -> "Architecture | None":
        from kinship.checkpoints.architecture import architecture_of  # the command line knows the groupings without it

        return architecture_of(self._model)


def kind_in(model: Any, parameter: str) -> str:
    """The kind of module that a ``parameter`` of the transformers ``model`` belongs to, by the classes it lies in.

    As `module_kind`, and besides: attention and cross-attention, with what they make (q, k, v, qkv, kv, o) where that
    is known, linear attention, convolutions, and projectors between parts of a model. No weight is read.
    """
    path = parameter.split(".")
    modules = list(_modules(model, path[:-1]))
    owner, classes = modules[-1] if modules else model, [type(module).__name__ for module in modules]
    if "Norm" in type(owner).__name__:
        return "norms"
    if owner is _table(model, "get_input_embeddings"):
        return "embeddings"
    if owner is _table(model, "get_output_embeddings"):
        return "head"
    if any(map(_SHARED.search, path[:-1])):
        return "router" if "_gate" in path[-2] else "shared experts"
    for depth, name in reversed(list(enumerate(classes))):
        kind = next((kind for kind, pattern in _CLASSES if pattern.search(name)), None)
        if kind == "moe":
            return "router" if path[depth + 1] in ("gate", "router") else "mlp"
        if kind == "embeddings" and any("Attention" in above for above in classes[:depth]):
            return "position biases"
        if kind == "attention":
            return _attention(path, classes)
        if kind is not None:
            return kind
    if any(map(_CONVOLUTION.search, classes)):
        return "convolutions"
    prefix = getattr(model, "base_model_prefix", "")
    outside = hasattr(model, prefix) and path[0] != prefix
    return "head" if outside else module_kind(parameter)


def _attention(path: list[str], classes: list[str]) -> str:
    cross = any(_CROSS.search(part) for part in (*path, *classes))
    made = path[-2] if path[-1] in ("weight", "bias") else path[-1]
    part = next((f" {part}" for part, pattern in _PARTS if pattern.fullmatch(made)), "")
    return f"{'cross-' * cross}attention{part}"


def _modules(model: Any, path: list[str]) -> Iterator[Any]:
    for name in path:
        model = getattr(model, name)
        yield model


def _table(model: Any, getter: str) -> Any:
    """The module that a model's ``getter`` gives; None where it has none, or does not know."""
    try:
        return getattr(model, getter)()
    except (AttributeError, NotImplementedError):
        return None
