"""Models of one family of which some have a head of their own and some have it tied: all of them with one."""

from collections.abc import Sequence

from kinship.checkpoints.adapted import AdaptedCheckpoint
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.tied import Untied, has_own_head, tied_among


def with_own_heads(models: Sequence[Checkpoint]) -> list[Checkpoint]:
    """``models`` as they are, but where some have a head of their own (as their config says), all the others that have
    it tied lend theirs from the embedding: their head *is* it.

    So a head that an adapter trained is compared, merged and scored against what it was in the base. Reads nothing.
    """
    own = {name for model in models if has_own_head(model) for name in model.tensors}
    found = list(models)
    for place, model in enumerate(models if own else ()):
        if has_own_head(model):
            continue
        for head, embedding in tied_among(model, own).items():
            if isinstance(model, AdaptedCheckpoint):
                found[place] = model.untied(head, embedding)
            else:
                found[place] = Untied(found[place], head, embedding)
    return found
