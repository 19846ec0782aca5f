"""From references to a heritage: open, sample, group into families, and reconstruct each."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import InvalidConfig
from kinship.heritage.grouping import FALSE_LINK_RATE, group
from kinship.heritage.pedigree import Edge, Heritage, Latent, Node
from kinship.heritage.reconstruct import reconstruct
from kinship.heritage.sampling import Progress, Stages
from kinship.measures.matrix import require_unique
from kinship.sketches.index import SketchIndex


def recover(
    models: Sequence[str | Path],
    base: str | Path | None = None,
    progress: Progress | None = None,
    *,
    allow_pickle: bool = False,
    index: Path | None = None,
) -> Heritage:
    """Who was made from whom among ``models``, from their weights alone; ``base``, if known, is the root of its family.

    References are those of `kinship.kinship_matrix`. Models of different architectures may be given together.
    ``progress`` is told stages. Of models that are alone, samples are read; those of families are read whole, once.
    With ``index``, a file of `SketchIndex`, families are told by sketches, and what is not remembered there is added.
    Raises `InvalidConfig` for fewer than two models, the errors of `open_checkpoint`, and `NonFiniteWeights`.
    """
    references = [str(model) for model in models]
    require_unique(references)
    if base is not None and str(base) not in references:
        references.insert(0, str(base))
    if len(references) < 2:
        raise InvalidConfig("Heritage needs at least two models.", hint="kinship tree MODEL MODEL... --recover")
    stages = Stages(progress)
    sketches = SketchIndex(index) if index is not None else None
    nodes: list[Node | None] = [None] * len(references)
    edges: list[Edge] = []
    latent: list[Latent] = []
    notes: list[str] = []
    with ExitStack() as stack:
        opened = [
            stack.enter_context(open_checkpoint(one, allow_pickle=allow_pickle))
            for one in stages.each("Opening models", references)
        ]
        known = references.index(str(base)) if base is not None else None
        groups, told = group(opened, stages, sketches)
        notes += told
        for number, members in enumerate(groups):
            for place in members:
                nodes[place] = Node(references[place], number)
            if len(members) > 1:
                root = members.index(known) if known in members else None
                found = reconstruct([opened[place] for place in members], root, number, stages)
                edges += found.edges
                latent += found.latent
                notes += found.notes
            for place in members:
                opened[place].close()
    return Heritage(tuple(node for node in nodes if node), tuple(edges), tuple(latent), FALSE_LINK_RATE, tuple(notes))
