"""From references to a heritage: open, group into families, and look into each with one finder after the other."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

from kinship.checkpoints.adapted import AdaptedCheckpoint, foreign_adapters
from kinship.checkpoints.adapter_alone import Nothing, is_adapter_alone, open_adapter_alone
from kinship.checkpoints.checkpoint import unchanged
from kinship.checkpoints.opening import open_checkpoint
from kinship.checkpoints.own_heads import with_own_heads
from kinship.checkpoints.references import listed
from kinship.checkpoints.unified import unified_by_kind
from kinship.errors import InvalidConfig
from kinship.heritage.copies import find_casts, find_duplicates, find_quantised, find_stacks
from kinship.heritage.family import Family, Finder, Finding
from kinship.heritage.finetunes import find_finetunes
from kinship.heritage.grouping import FALSE_LINK_RATE, group
from kinship.heritage.merges import find_merges
from kinship.heritage.pedigree import Edge, Heritage, Latent, Node
from kinship.heritage.stages import Progress, Stages
from kinship.heritage.trimmed import find_trimmed
from kinship.measures.matrix import require_unique
from kinship.sketches.index import SketchIndex

# What is surest comes first: later finders look at what those before leave unexplained.
FINDERS: tuple[Finder, ...] = (
    find_stacks,
    find_duplicates,
    find_casts,
    find_quantised,
    find_merges,
    find_trimmed,
    find_finetunes,
)


def recover(
    models: Iterable[str | Path],
    base: str | Path | None = None,
    progress: Progress | None = None,
    *,
    allow_pickle: bool = False,
    index: Path | None = None,
) -> Heritage:
    """Who was made from whom among ``models``, from their weights alone; ``base``, if known, is the root of its family.

    References are those of `kinship.kinship_matrix`, and folders of adapters without their base, whose changes are
    compared. Models of different architectures may be given together.
    ``progress`` is told stages. Of models that are alone, samples are read; those of families are read whole, once.
    With ``index``, a file of `SketchIndex`, families are told by sketches, and what is not remembered there is added.
    Raises `InvalidConfig` for fewer than two models, the errors of `open_checkpoint`, and `NonFiniteWeights`.
    """
    references = [str(model) for model in listed(models)]
    require_unique(references)
    if base is not None and str(base) not in references:
        references.insert(0, str(base))
    if len(references) < 2:
        raise InvalidConfig("Heritage needs at least two models.", hint="kinship tree MODEL MODEL... --recover")
    root = references.index(str(base)) if base is not None else None
    stages = Stages(progress)
    edges: list[Edge] = []
    latent: list[Latent] = []
    with ExitStack() as stack:
        opened = [
            stack.enter_context(
                open_adapter_alone(one) if is_adapter_alone(one) else open_checkpoint(one, allow_pickle=allow_pickle)
            )
            for one in stages.each("Opening models", references)
        ]
        stack.enter_context(unchanged(opened))
        notes = foreign_adapters(opened)
        bare = [one.id for one in opened if isinstance(one, AdaptedCheckpoint) and isinstance(one.base, Nothing)]
        if bare:
            notes.append(f"Without a base, compared by their changes alone: {', '.join(bare)}.")
        opened = unified_by_kind(opened)
        grouping = group(opened, stages, SketchIndex(index) if index is not None else None)
        notes += grouping.notes
        for number, members in enumerate(grouping.families):
            kin = with_own_heads([opened[place] for place in members])
            if len(kin) > 1:
                family = Family.of(kin, members.index(root) if root in members else None, stages)
                for finding in reconstruct(family):
                    edges += _edges(finding, family)
                    latent += [Latent(number, tuple(map(family.id, who)), why) for who, why in finding.latent]
                    notes += [note for note in finding.notes if note not in notes]
            for model in kin:
                model.close()
    families = {place: number for number, members in enumerate(grouping.families) for place in members}
    beside = {place: (references[one.model], one.p) for place, one in grouping.nearest.items()}
    nodes = tuple(
        Node(reference, families[place], *beside.get(place, (None, None))) for place, reference in enumerate(references)
    )
    return Heritage(nodes, tuple(edges), tuple(latent), FALSE_LINK_RATE, tuple(notes))


def reconstruct(family: Family) -> Iterator[Finding]:
    """What each of `FINDERS` finds in one family.

    Reads every file once for the distances, samples of it again, and matrices of accepted edges for their rank.
    """
    for find in FINDERS if family.comparable else (find_stacks,):
        finding = find(family)
        family.found += finding.relations
        yield finding


def _edges(finding: Finding, family: Family) -> list[Edge]:
    return [
        Edge(family.id(parent), family.id(one.child), one.kind, one.confidence, evidence)
        for one in finding.relations
        for parent, evidence in one.evidence.items()
    ]
