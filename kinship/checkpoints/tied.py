"""Embeddings and heads by name, and heads that are no weights of their own because they are the embedding again."""

import re
from collections.abc import Sequence

from kinship.checkpoints.checkpoint import Checkpoint

_EMBEDDING = re.compile(r"(.+\.)?(embed_tokens|wte|embed_in|word_embeddings|tok_embeddings|shared)\.weight")
_HEAD = re.compile(r"((.+\.)?(lm_head|embed_out|output_layer)|output)\.(weight|bias)")


def has_token_rows(name: str) -> bool:
    """Whether a tensor of this name has a row for each token.

    >>> [has_token_rows(name) for name in ("model.embed_tokens.weight", "lm_head.weight", "model.norm.weight")]
    [True, True, False]
    """
    return bool(_EMBEDDING.fullmatch(name) or _HEAD.fullmatch(name))


def tied_heads(models: Sequence[Checkpoint]) -> dict[str, str]:
    """Heads that are an embedding which all ``models`` store, in at least one of them; with what to say of it.

    A model's head is tied where its config says ``tie_word_embeddings``, or says nothing and no head is stored.
    """
    heads = sorted({name for model in models for name in model.tensors if _HEAD.fullmatch(name)})
    found = {}
    for head in heads:
        embedding = _embedding_of(head, models)
        owners = [model.id for model in models if _is_tied(model, head)]
        if embedding and owners:
            found[head] = f"tied to {embedding} in {', '.join(owners)}"
    return found


def _embedding_of(head: str, models: Sequence[Checkpoint]) -> str | None:
    for name in models[0].tensors:
        if _EMBEDDING.fullmatch(name) and all(
            name in model.tensors and (head not in model.tensors or _shape(model, head) == _shape(model, name))
            for model in models
        ):
            return name
    return None


def _is_tied(model: Checkpoint, head: str) -> bool:
    text = model.config.get("text_config")  # models of text and images
    inner = text.get("tie_word_embeddings") if isinstance(text, dict) else None
    tied = model.config.get("tie_word_embeddings", inner)
    return head not in model.tensors if tied is None else tied is True


def _shape(model: Checkpoint, name: str) -> tuple[int, ...]:
    return model.tensors[name].shape
