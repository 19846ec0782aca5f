"""What does not fit a model's context, told with task and document: lm-eval asserts, and says nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

from kinship.errors import EvaluationFailed, InvalidConfig

SPECIAL = 8  # tokens that a tokenizer may add to those of the text's bytes
SHOWN = 40


def require_fitting(name: str, task: Any, documents: Mapping[int, Any], lm: Any) -> None:
    """Raise `InvalidConfig` where an answer of ``documents`` is longer than the context of ``lm``, or a generation.

    The model's tokenizer is asked about answers alone that have as many bytes as the context has tokens. Of tasks that
    are Python classes nothing is known beforehand.
    """
    if task.OUTPUT_TYPE == "generate_until":
        _require_room(name, task, lm)
    if task.OUTPUT_TYPE not in ("multiple_choice", "loglikelihood") or not hasattr(task, "doc_to_choice"):
        return
    for index, document in documents.items():
        for answer in _answers(task, document):
            if len(answer.encode()) + SPECIAL > lm.max_length:
                tokens = len(lm.tok_encode(answer, add_special_tokens=False))
                if tokens > lm.max_length:
                    raise InvalidConfig(
                        _too_long(f"An answer of document {index} of task {name}", answer, tokens, lm), hint=_HINT
                    )


def unfit(lm: Any, context: Sequence[int], continuation: Sequence[int], request: Any) -> EvaluationFailed:
    """The error for tokens that ``lm`` cannot be asked about; ``request``: lm-eval's, None for a part of a text."""
    where = f"document {request.doc_id} of task {request.task_name}" if request else "a text"
    if not context or not continuation:
        part = "answer" if context else "prompt"
        return EvaluationFailed(
            f"The {part} of {where} has no tokens, so nothing can be asked.",
            hint="Correct the task's doc_to_text or doc_to_target, or leave the document out (process_docs).",
        )
    answer = request.args[1] if request else ""
    return EvaluationFailed(_too_long(f"An answer of {where}", answer, len(continuation), lm), hint=_HINT)


_HINT = "Leave the document out (the task's process_docs), or score models with a longer context."


def _too_long(what: str, answer: str, tokens: int, lm: Any) -> str:
    shown = f" ({answer.strip()[:SHOWN]!r} ...)" if answer else ""
    return f"{what}{shown} has {tokens} tokens; the model's context has {lm.max_length}."


def most_generated(lm: Any, generation: Mapping[str, Any]) -> int:
    """How many tokens an answer may have by these settings of a generation."""
    from lm_eval.models.utils import normalize_gen_kwargs

    return int(normalize_gen_kwargs(dict(generation), lm.max_gen_toks)["max_gen_toks"])


def _require_room(name: str, task: Any, lm: Any) -> None:
    """lm-eval takes the room for an answer of a causal model from its context."""
    if lm.backend != "causal":
        return
    most = most_generated(lm, task.config.generation_kwargs or {})
    if most >= lm.max_length:
        raise InvalidConfig(
            f"Task {name} lets answers have {most} tokens; the model's context has {lm.max_length}, prompt included.",
            hint="Set gen_kwargs: {max_gen_toks: ...} in evaluate, or of this task.",
        )


def _answers(task: Any, document: Any) -> list[str]:
    """What likelihoods are asked of, as far as templates tell."""
    chosen = task.OUTPUT_TYPE == "multiple_choice" and not task.multiple_input
    found = task.doc_to_choice(document) if chosen else [task.doc_to_target(document)]
    return [f"{task.config.target_delimiter}{answer}" for answer in found if isinstance(answer, str)]
