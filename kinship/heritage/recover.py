"""From references to a heritage: open, sample, group into families, and reconstruct each."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from kinship.errors import InvalidConfig
from kinship.heritage.families import FALSE_LINK_RATE, correlations, families
from kinship.heritage.pedigree import Edge, Heritage, Latent, Node
from kinship.heritage.reconstruct import reconstruct
from kinship.heritage.sampling import sample
from kinship.matrix import require_unique
from kinship.opening import open_checkpoint


def recover(
    models: Sequence[str | Path],
    base: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    allow_pickle: bool = False,
) -> Heritage:
    """Who was made from whom among ``models``, from their weights alone; ``base``, if known, is the root of its family.

    References are those of `kinship.compute.kinship_matrix`. Models of different architectures may be given together.
    ``progress(done, total)`` is told bytes. Every file is read once, those of close relatives again. Raises
    `InvalidConfig` for fewer than two models, the errors of `open_checkpoint`, and `NonFiniteWeights`.
    """
    references = [str(model) for model in models]
    require_unique(references)
    if base is not None and str(base) not in references:
        references.insert(0, str(base))
    if len(references) < 2:
        raise InvalidConfig("Heritage needs at least two models.", hint="kinship tree MODEL MODEL... --recover")
    with ExitStack() as stack:
        opened = [stack.enter_context(open_checkpoint(one, allow_pickle=allow_pickle)) for one in references]
        total, done = sum(entry.nbytes for model in opened for entry in model.tensors.values()), 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(min(done, total), total)

        correlation, error = correlations(sample(opened), len(opened))
        groups = families(correlation, error)
        nodes: list[Node | None] = [None] * len(opened)
        edges: list[Edge] = []
        latent: list[Latent] = []
        notes: list[str] = []
        for number, group in enumerate(groups):
            for place in group:
                nodes[place] = Node(references[place], number)
            if len(group) > 1:
                known = references.index(str(base)) if base is not None else None
                found = reconstruct(
                    [opened[place] for place in group],
                    correlation[group][:, group],
                    group.index(known) if known in group else None,
                    number,
                    advance,
                )
                edges += found.edges
                latent += found.latent
                notes += found.notes
        if progress is not None:
            progress(total, total)
    return Heritage(tuple(node for node in nodes if node), tuple(edges), tuple(latent), FALSE_LINK_RATE, tuple(notes))
