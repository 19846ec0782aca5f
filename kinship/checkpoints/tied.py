"""Embeddings and heads by name, and heads that are no weights of their own because they are the embedding again."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from kinship.checkpoints.checkpoint import Checkpoint

_EMBEDDING = re.compile(r"(.+\.)?(embed_tokens|wte|embed_in|word_embeddings|tok_embeddings|shared)\.weight")
_WHOLE_HEAD = "lm_head.weight"
# Architectures with one head that may be tied to the embedding, and those where more than that may be.
_WITH_HEAD = re.compile(r".*(ForCausalLM|LMHeadModel|ForConditionalGeneration)")
_WITH_MORE = re.compile(r".*(ForMaskedLM|ForPreTraining)")
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


def tied_pair(model: Checkpoint) -> tuple[str, str] | None:
    """Head and embedding of a ``model`` that has them as one; None where they are not, or not known to be.

    The head is called ``lm_head.weight`` where it is not stored, as transformers would store it.
    """
    embedding = next((name for name in model.tensors if _EMBEDDING.fullmatch(name)), None)
    stored = next((name for name in model.tensors if _HEAD.fullmatch(name) and name.endswith(".weight")), None)
    named = _architectures(model)
    has_head = any(map(_WITH_HEAD.fullmatch, named)) if named else _says(model.config) is True
    head = stored or (_WHOLE_HEAD if has_head else None)
    if embedding is None or head is None or not _is_tied(model, head) or ties_more(model):
        return None
    return head, embedding


def ties_more(model: Checkpoint) -> bool:
    """Whether more than a head may be tied to the embedding: encoders with decoders, heads of masked models."""
    more = model.config.get("is_encoder_decoder") or any(map(_WITH_MORE.fullmatch, _architectures(model)))
    return bool(more) and _says(model.config) is not False


def is_embedding(name: str) -> bool:
    """Whether a tensor of this name is the table of the tokens' vectors."""
    return bool(_EMBEDDING.fullmatch(name))


def _architectures(model: Checkpoint) -> list[str]:
    named = model.config.get("architectures")
    return [str(name) for name in named] if isinstance(named, list) else []


def untied(config: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` of a model whose head is a tensor of its own; an empty one stays empty.

    >>> untied({"text_config": {"hidden_size": 8}})
    {'text_config': {'hidden_size': 8, 'tie_word_embeddings': False}, 'tie_word_embeddings': False}
    """
    inner = config.get("text_config")
    nested = {"text_config": untied(inner)} if isinstance(inner, Mapping) else {}
    return dict(config) | nested | {"tie_word_embeddings": False} if config else {}


def tie_as_told(config: Any, checkpoint: Checkpoint) -> Any:
    """transformers' ``config``, loaded from the folder of ``checkpoint``, with its head untied where that says so."""
    if _says(checkpoint.config) is False:
        for part in (config, config.get_text_config()):
            part.tie_word_embeddings = False
    return config


def has_own_head(model: Checkpoint) -> bool:
    """Whether ``model`` stores a head and says that it is not the embedding."""
    return _says(model.config) is False and any(map(_HEAD.fullmatch, model.tensors))


def own_heads(models: Sequence[Checkpoint]) -> list[str]:
    """Names of the heads that ``models`` store."""
    return sorted({name for model in models for name in model.tensors if _HEAD.fullmatch(name) and "bias" not in name})


def tied_to(model: Checkpoint, head: str) -> str | None:
    """The embedding that the ``head`` of ``model`` is; None where it is not tied."""
    return _embedding_of(head, [model]) if _is_tied(model, head) else None


class Untied(Checkpoint):
    """``inner`` with its ``embedding`` a second time, as a ``head`` of its own."""

    def __init__(self, inner: Checkpoint, head: str, embedding: str) -> None:
        own = {} if head in inner.tensors else {head: replace(inner.tensors[embedding], name=head)}
        super().__init__(inner.id, inner.path, {**inner.tensors, **own}, untied(inner.config), inner.beside)
        self.inner = inner
        self._lent = dict.fromkeys(own, embedding)

    def read_into(self, name: str, start: int, view: memoryview) -> None:
        """See `Checkpoint.read_into`."""
        self.inner.read_into(self._lent.get(name, name), start, view)

    def _fingerprint(self) -> str | None:
        inner = self.inner._fingerprint()
        return inner and hashlib.sha256(f"{inner}:untied:{sorted(self._lent.items())}".encode()).hexdigest()

    def close(self) -> None:
        """Close the files of ``inner`` too."""
        super().close()
        self.inner.close()


def _embedding_of(head: str, models: Sequence[Checkpoint]) -> str | None:
    for name in models[0].tensors:
        if _EMBEDDING.fullmatch(name) and all(
            name in model.tensors and (head not in model.tensors or _shape(model, head) == _shape(model, name))
            for model in models
        ):
            return name
    return None


def _is_tied(model: Checkpoint, head: str) -> bool:
    tied = _says(model.config)
    return head not in model.tensors if tied is None else tied is True


def _says(config: Mapping[str, Any]) -> Any:
    """What a config says of ``tie_word_embeddings``; None where it says nothing."""
    text = config.get("text_config")  # models of text and images
    inner = text.get("tie_word_embeddings") if isinstance(text, dict) else None
    return config.get("tie_word_embeddings", inner)


def _shape(model: Checkpoint, name: str) -> tuple[int, ...]:
    return model.tensors[name].shape
