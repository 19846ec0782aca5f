"""Which models can be asked for text, as what, and whether one may be padded."""

import re
from collections.abc import Mapping
from typing import Any, Literal

import torch

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.errors import UnsupportedCheckpoint

Kind = Literal["causal", "seq2seq"]
"""lm-eval's words: the text goes on after the prompt, or a decoder answers an encoder that has read the prompt."""

Loader = Literal["AutoModelForCausalLM", "AutoModelForSeq2SeqLM", "AutoModelForImageTextToText"]
"""Classes of transformers."""

HF_BACKENDS = ("hf", "hf-auto", "huggingface")
"""lm-eval's names for the backend that loads models by these two classes."""

# Ends of class names; heads that say something of a text, or fill its gaps, and write none.
_NO_TEXT = re.compile(r"For(MaskedLM|PreTraining|NextSentencePrediction|MultipleChoice|\w*(Classification|Answering))$")
SEEING: Loader = "AutoModelForImageTextToText"
_TAKEN = (
    "Scored are models that AutoModelForCausalLM or AutoModelForSeq2SeqLM loads, and with `text_only: true` in evaluate"
    " those of AutoModelForImageTextToText; any can be compared and merged."
)


def kind_of(template: Checkpoint, config: Any) -> Kind:
    """As what lm-eval asks the model of ``config``, a transformers config; from names alone, no weight is read.

    Raises `UnsupportedCheckpoint` for a model that makes no text, or that sees the answer whose likelihood is asked.
    """
    from transformers.models.auto import modeling_auto as auto

    architecture = (config.architectures or [config.model_type])[0]
    if config.is_encoder_decoder and config.model_type in auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        return "seq2seq"
    says_so = getattr(config, "is_decoder", False) or getattr(config, "causal", False)
    masked = config.model_type in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES or config.model_type == "xlnet"
    if masked and not config.is_encoder_decoder and not says_so:
        raise sees_ahead(template.id, architecture)
    known = config.model_type in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or loader_of(config) == SEEING
    if not known or config.is_encoder_decoder or _NO_TEXT.search(architecture):
        raise UnsupportedCheckpoint(
            f"{template.id} is a {architecture}, which goes on with no text: it cannot be scored.", hint=_TAKEN
        )
    return "causal"


def loader_of(config: Any) -> Loader:
    """The class of transformers that makes the model of ``config``, if any does that makes text.

    A vision-language model is more than the causal model that lies in it, whose names are others.
    """
    from transformers.models.auto import modeling_auto as auto

    if config.is_encoder_decoder:
        return "AutoModelForSeq2SeqLM"
    named, kind = (config.architectures or [None])[0], config.model_type
    if named in _named(auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES, kind):
        return "AutoModelForCausalLM" if named in _named(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, kind) else SEEING
    return "AutoModelForCausalLM"


def _named(mapping: Mapping[str, str | tuple[str, ...]], kind: str) -> tuple[str, ...]:
    names = mapping.get(kind, ())
    return (names,) if isinstance(names, str) else names


def require_hf_backend(template: Checkpoint, config: Any) -> None:
    """Raise `UnsupportedCheckpoint` for a model that makes no text, or that lm-eval's backend ``hf`` does not load."""
    kind_of(template, config)
    if loader_of(config) == SEEING:
        raise UnsupportedCheckpoint(
            f"{template.id} is a {config.architectures[0]}, which lm-eval's backend hf does not load.",
            hint="Say backend: hf-multimodal; or leave out `written`, and in memory `text_only: true` scores its text.",
        )


def sees_ahead(model: str, architecture: str) -> UnsupportedCheckpoint:
    """The error for a model with attention to both sides."""
    return UnsupportedCheckpoint(
        f"{model} is a {architecture}, which sees the words on both sides of each: its likelihood of an answer "
        "means nothing.",
        hint=_TAKEN,
    )


def sees_images(model: str, architecture: str) -> UnsupportedCheckpoint:
    """The error for a vision-language model where nobody said that its text is what is asked for."""
    return UnsupportedCheckpoint(
        f"{model} is a {architecture}, which sees images; scores are of text, and show nothing of its sight.",
        hint="Say `text_only: true` in evaluate to score its text; it can be compared and merged as it is.",
    )


def looks_ahead(model: Any) -> bool:
    """Whether a token changes the logits before it, whatever the class is called. Cost: one forward of six tokens."""
    logits = _logits(model, [[5, 6, 7], [5, 6, 8]])
    return _differ(logits[0, 0], logits[1, 0])


def minds_padding(model: Any) -> bool:
    """Whether a causal model lets tokens through that its attention mask hides, as recurrent ones may (RWKV, Griffin).

    Padded on the left for a generation, such a model says something else than alone; RWKV's state mixes even prompts
    of one length. Padding on the right, as of likelihoods, changes nothing. Cost: one forward of eight tokens.
    """
    hidden = torch.tensor([[0, 0, 1, 1]] * 2, device=model.device)
    logits = _logits(model, [[5, 6, 7, 8], [8, 5, 7, 8]], attention_mask=hidden)
    return _differ(logits[0, -1], logits[1, -1])


def _logits(model: Any, rows: list[list[int]], **options: Any) -> torch.Tensor:
    ids = torch.tensor(rows, device=model.device) % model.get_input_embeddings().num_embeddings
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=ids, **options).logits
    return logits


def _differ(one: torch.Tensor, other: torch.Tensor) -> bool:
    """By more than rounding, which in a mixture of experts depends on what is computed side by side."""
    rounding = 1e-4 if one.dtype == torch.float32 else 5e-2
    return bool((one - other).float().abs().max() > rounding * one.float().abs().max())
