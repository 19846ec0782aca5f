"""Whose tokenizer, template and end tokens everybody is scored in: one frame, for scores that can be compared."""

from collections.abc import Mapping, Sequence

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.frame import differences, frame_of
from kinship.errors import InvalidConfig
from search.comparison.plan import ComparisonPlan

VOCABULARY = ("vocabulary", "added tokens", "vocab.json", "vocab.txt", "added_tokens.json", "tokenizer.model")


def chosen_frame(plan: ComparisonPlan, opened: Mapping[str, Checkpoint]) -> Checkpoint:
    """The model whose frame all arms get: that of ``plan.frame``, else the one that the trained models share.

    opened: the models by how the plan names them; the base's own frame is no matter, as it is none in a search. Raises
    `InvalidConfig` where frames differ and the plan does not say whose it is, and where a number stands for another
    token in another model, which no frame mends.
    """
    trained = [model for reference, model in opened.items() if reference != plan.base]
    differ = differences([frame_of(model) for model in trained])
    tokens = _tokens(differences([frame_of(model) for model in opened.values()]))
    if tokens:
        raise InvalidConfig(
            f"The models number their tokens differently: {'; '.join(tokens)}.",
            hint="Bring them to one vocabulary first (kinship merge with tokenizer_source), and compare those.",
        )
    if plan.frame is not None:
        return opened[plan.frame]
    if differ:
        raise InvalidConfig(
            "The models have different tokenizers, templates or end tokens, and they are compared in one: "
            + "; ".join(differ)
            + ".",
            hint=f"Say in the plan whose: frame: {plan.base} (or another of its models). Models whose own frame is "
            "another are then scored in a foreign one.",
        )
    base, first = opened[plan.base], trained[0]
    return base if not differences([frame_of(base), frame_of(first)]) else first


def _tokens(differ: Sequence[str]) -> list[str]:
    return [difference for difference in differ if difference.startswith(VOCABULARY)]
