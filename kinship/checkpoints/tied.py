"""Heads that are no weights of their own because they are the embedding again, and other tensors that are one."""

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kinship.checkpoints.architecture import architecture_of
from kinship.checkpoints.checkpoint import Checkpoint

_EMBEDDING = re.compile(r"(.+\.)?(embed_tokens|wte|embed_in|word_embeddings|tok_embeddings|shared)\.weight")
_WHOLE_HEAD = "lm_head.weight"
# Architectures with one head that may be tied to the embedding, those where more than that may be, and those with none.
_WITH_HEAD = re.compile(r".*(ForCausalLM|LMHeadModel|ForConditionalGeneration)")
_WITH_MORE = re.compile(r".*(ForMaskedLM|ForPreTraining)")
_WITHOUT = re.compile(r".*(For\w*(Classification|Answering|Choice)|(?<!LMHead)Model)")
_HEAD = re.compile(r"((.+\.)?(lm_head|embed_out|output_layer)|output)\.(weight|bias)")


def has_token_rows(name: str) -> bool:
    """Whether a tensor of this name has a row for each token.

    >>> [has_token_rows(name) for name in ("model.embed_tokens.weight", "lm_head.weight", "model.norm.weight")]
    [True, True, False]
    """
    return bool(_EMBEDDING.fullmatch(name) or _HEAD.fullmatch(name))


def tied_heads(models: Sequence[Checkpoint]) -> dict[str, str]:
    """Stored heads that are an embedding which all ``models`` store, in at least one of them; with what to say of it.

    So are all tensors that are another one's again as transformers makes the model: encoders' embeddings, biases. Where
    names tell, a model's head is tied where its config says ``tie_word_embeddings``, or says nothing and no head is
    stored.
    """
    known = [ties_of(model) for model in models]
    stored = {name for model in models for name in model.tensors}
    heads = {name for name in stored if _HEAD.fullmatch(name)}.union(*(ties.keys() & stored for ties in known if ties))
    found = {}
    for head in sorted(heads):
        tables = [ties[head] for ties in known if ties and head in ties]
        embedding = _same_in_all(head, models, tables) if tables else _embedding_of(head, models)
        owners = [
            model.id
            for model, ties in zip(models, known, strict=True)
            if (_is_tied(model, head) if ties is None else head in ties)
        ]
        if embedding and owners:
            found[head] = f"tied to {embedding} in {', '.join(owners)}"
    return found


def tied_pair(model: Checkpoint) -> tuple[str, str] | None:
    """Head and embedding of a ``model`` that has them as one; None where they are not, or not known to be.

    The head is called what transformers calls it where it is not stored, ``lm_head.weight`` where names tell.
    """
    known = ties_of(model)
    if known is not None:
        return next(iter(known.items())) if len(known) == 1 else None
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


def ties_of(model: Checkpoint) -> dict[str, str] | None:
    """The tensors of ``model`` that are others again, with those others, by the names that its file has or would have.

    As transformers makes the model. None where names tell as much: where there is an embedding of a known name, below a
    head, or the config names no class.
    """
    named = _architectures(model)
    seq2seq = model.config.get("is_encoder_decoder")
    causal = any(map(_WITH_HEAD.fullmatch, named)) and any(map(is_embedding, model.tensors))
    if not named or (not seq2seq and (causal or all(map(_WITHOUT.fullmatch, named)))):
        return None
    architecture = architecture_of(model)
    if architecture is None:
        return None
    names = {place.parameter: name for name, place in architecture.places(model.tensors).items() if not place.pattern}
    return {names.get(one, one): names.get(other, other) for one, other in architecture.tied.items()}


def is_embedding(name: str) -> bool:
    """Whether a tensor of this name is the table of the tokens' vectors."""
    return bool(_EMBEDDING.fullmatch(name))


def _architectures(model: Checkpoint) -> list[str]:
    named = model.config.get("architectures")
    return [str(name) for name in named] if isinstance(named, list) else []


def unequal_head(model: Checkpoint, config: Mapping[str, Any]) -> tuple[str, str] | None:
    """Head and embedding that ``config`` ties and ``model`` stores with different numbers: transformers, from version 5
    on, leaves those untied. None for all other models.

    Reads both until they differ, where both are stored.
    """
    if _says(config) is not True or config.get("is_encoder_decoder"):
        return None
    for head in filter(_HEAD.fullmatch, model.tensors):
        embedding = _embedding_of(head, [model])
        if embedding and unequal(model, head, embedding):
            return head, embedding
    return None


def unequal(model: Checkpoint, one: str, other: str) -> bool:
    """Whether two tensors hold different numbers, as bytes of one dtype tell; reads both until they do."""
    first, second = model.tensors[one], model.tensors[other]
    if first.shape != second.shape or first.dtype != second.dtype:
        return first.shape != second.shape
    pairs = ((model.stored(one, *block), model.stored(other, *block)) for block in model.blocks(one))
    return not all(bool((left == right).all()) for left, right in pairs)


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
    """Whether ``model`` says that its head is not the embedding."""
    return _says(model.config) is False


def tied_among(model: Checkpoint, names: Collection[str]) -> dict[str, str]:
    """Those of the tensors ``names``, which other models have, that are others again in ``model``, with those."""
    known = ties_of(model)
    if known is None:
        heads = [name for name in names if _HEAD.fullmatch(name) and "bias" not in name and _is_tied(model, name)]
        known = {head: table for head in heads if (table := _embedding_of(head, [model]))}
    return {head: known[head] for head in sorted(known.keys() & set(names))}


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
    return _same_in_all(head, models, list(filter(is_embedding, models[0].tensors)))


def _same_in_all(head: str, models: Sequence[Checkpoint], tables: Sequence[str]) -> str | None:
    """The first of ``tables`` that all ``models`` store, in the shape of the ``head`` where they store that."""
    return next(
        (
            name
            for name in tables
            if all(
                name in model.tensors and (head not in model.tensors or _shape(model, head) == _shape(model, name))
                for model in models
            )
        ),
        None,
    )


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
