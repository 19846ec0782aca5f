"""Whose tokenizer, template and end tokens everybody is scored in: one frame, for scores that can be compared."""

from collections.abc import Mapping

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.frame import differences, frame_of, renumbered, shared_frame
from kinship.errors import InvalidConfig
from search.comparison.plan import ComparisonPlan


def chosen_frame(plan: ComparisonPlan, opened: Mapping[str, Checkpoint]) -> str:
    """The model whose frame all arms get: that of ``plan.frame``, else the one that the trained models share.

    opened: the plan's models, the base first; its own frame is no matter, as it is none in a search. Raises
    `InvalidConfig` where frames differ and the plan does not say whose it is, and where a number stands for another
    token in another model, which no frame mends.
    """
    frames = [frame_of(model) for model in opened.values()]
    tokens = renumbered(differences(frames))
    if tokens:
        raise InvalidConfig(
            f"The models number their tokens differently: {'; '.join(tokens)}.",
            hint="Bring them to one vocabulary first (kinship merge with tokenizer_source), and compare those.",
        )
    if plan.frame is not None:
        return plan.frame
    place, differ = shared_frame(frames)
    if differ:
        raise InvalidConfig(
            "The models have different tokenizers, templates or end tokens, and they are compared in one: "
            + "; ".join(differ)
            + ".",
            hint=f"Say in the plan whose: frame: {plan.base} (or another of its models). Models whose own frame is "
            "another are then scored in a foreign one.",
        )
    return list(opened)[place]
