"""The control of a search: its best merge once more, with a random task vector in the place of a founder's.

What merging brings could be the change itself and nothing that anybody learned: this tells. It is made and scored when
the search has stopped, is no individual, spends no budget, and is scored on the documents that decide alone.
"""

import shutil
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evaluators.base import Documents
from evaluators.scores.splits import Split
from evaluators.workers.base import words
from kinship.arrays import Float64
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.dtypes import FLOAT32
from kinship.errors import OutputNotWritable
from merging.offspring.basis import Basis
from merging.offspring.span import Genome, child_seed, genome_identity
from merging.recipe.schema import Recipe, parse_recipe
from merging.registry import get_method
from search.history.descent import Descent, renamed
from search.ledger.individuals import Individuals
from search.ledger.ledger import Ledger, RunFacts
from search.ledger.records import CONTROL, Failed, Record, best_offspring
from search.running.evaluation import Evaluation, MakeWork
from search.running.events import Observer
from search.running.workers import Work
from search.strategies.recipes import recipe_of

FOLDER = "controls"  # of weights that are needed until the control is scored
RANDOM_VECTOR = "random_vector"

MakeEvaluation = Callable[[Individuals, MakeWork, Observer], Evaluation]


class Counterfactual(NamedTuple):
    """What an individual would be: its ``genome`` over ``basis``, and the ``identity`` of those weights."""

    genome: Genome
    basis: Basis
    identity: str


def control_id(id: str) -> str:
    """What the control of an individual is called, and what it is made of: no founder can be.

    >>> control_id("3-2")
    'control-3-2'
    """
    return f"control-{id}"


def score_random_vector(
    ledger: Ledger,
    facts: RunFacts,
    models: Sequence[Checkpoint],
    folder: Path,
    evaluation: MakeEvaluation,
    observer: Observer,
) -> None:
    """Make and score the control of the best offspring, where there is one and the ledger does not have it yet.

    models: base and founders, open, in the order of ``facts.table``. folder: of the run. observer: hears of phases, not
    of scores, which are no individual's. Killed meanwhile, it is done again; what is scored is in the ledger. Its
    failure is recorded as its own and ends no run. Cost: a random vector is drawn and written (one model in fp32), all
    founders are read once, and one model is scored.
    """
    individuals = Individuals(ledger, facts)
    best = best_offspring(individuals.records.values())
    founder = None if best is None else heaviest_founder(individuals, best)
    if best is None or founder is None:
        return
    id, whole = control_id(best.id), facts.config.evaluate.search_fraction == 1
    split: Split = "search" if whole else "held_out"
    known = {record.id: record for record in ledger.controls()}
    if id in known and (split in known[id].scores or known[id].error is not None):
        return
    place = folder / FOLDER
    observer("phase", {"phase": "merging", "individual": id})
    try:
        made = counterfactual(individuals, facts, models, place, best, founder)
        if id not in known:
            ledger.add([_record(best, founder, made.identity)], {})
    except (OSError, OutputNotWritable):
        raise  # a full disk is no fault of the control
    except Exception as error:
        failed = Failed("merging", "raised", words(error), traceback.format_exc())
        ledger.add([_record(best, founder, None)], {}, {id: failed})
        made = None
    try:
        if made is not None:
            tasks = {name: task["digest"] for name, task in facts.tasks.items()}

            def work(id: str, documents: Documents) -> Work:
                basis, count = made.basis, len(facts.digests)
                return Work.of(id, made.identity, made.genome, basis.span, documents, basis.models, count, tasks)

            def phases(name: str, facts: Mapping[str, Any]) -> None:
                if name == "phase":
                    observer(name, facts)

            individuals.include(ledger.controls(), individuals.span)
            evaluation(individuals, work, phases).score([id], split)
    finally:
        if made is not None:
            for model in made.basis.models[len(models) :]:
                model.close()
        shutil.rmtree(place, ignore_errors=True)


def heaviest_founder(individuals: Individuals, record: Record) -> str | None:
    """The founder whose task vector has the greatest length in an individual; None where none has any.

    Of a child outside the span, such as one by TIES, each parent counts for an equal part.
    """
    founders = [one.id for one in individuals.records.values() if one.role == "founder"]
    founders.sort(key=individuals.span.ids.index)
    parts = _parts(individuals, len(founders), record.id)
    return founders[int(parts.argmax())] if parts.any() else None


def _parts(individuals: Individuals, founders: int, id: str) -> Float64:
    """Lengths (founders,) of what founders add to an individual, of a child outside the span by its parents."""
    table = individuals.span.table
    assert table is not None
    squares = individuals.genome(id).coefficients ** 2 * np.diagonal(table.grams, axis1=1, axis2=2)
    lengths = np.sqrt(squares.sum(axis=0))[1:]
    parts: Float64 = lengths[:founders].copy()
    for name, length in zip(table.rows[founders + 1 :], lengths[founders:], strict=True):
        if length:
            parents = individuals.records[name].parents
            of_parents = np.sum([_parts(individuals, founders, parent) for parent in parents], axis=0)
            parts += length * of_parents / (of_parents.sum() or 1.0)
    return parts


def counterfactual(
    individuals: Individuals,
    facts: RunFacts,
    models: Sequence[Checkpoint],
    folder: Path,
    record: Record,
    founder: str,
) -> Counterfactual:
    """``record`` made by the same merges, drawn alike where they draw, of a random vector in place of ``founder``.

    The vector is that of `random_vector`, seeded by the run and the founder's weights. What leaves the span is written
    to ``folder``, in fp32. Raises as `Basis.add`.
    """
    basis = Basis.open(models, facts.table, folder, FLOAT32)
    digests = dict(facts.digests)
    names = {id: id for id in facts.digests}
    genomes = {id: basis.span.founder(id) for id in facts.digests}

    def make(name: str, recipe: Recipe, seed: int) -> None:
        nonlocal basis
        child = basis.merge_or_add(name, recipe, genomes, seed=seed, force=True)
        basis, genomes[name] = child.basis, child.genome
        if child.digest is not None:
            digests[name] = child.digest

    names[founder] = control_id("0-0")
    drawn = recipe_of(get_method(RANDOM_VECTOR), [(founder, {})], {})
    make(names[founder], drawn, child_seed(facts.config.seed, facts.digests[founder]))
    descent = Descent(individuals.span, individuals.records, facts.digests, individuals.genome, facts.config.seed)
    for step in descent.steps(record.id):
        names[step["id"]] = control_id(step["id"])
        make(names[step["id"]], renamed(parse_recipe(step["recipe"]), names), step["seed"])
    genome = genomes[control_id(record.id)]
    return Counterfactual(genome.padded(len(basis.span.ids)), basis, genome_identity(genome, basis.span, digests))


def _record(best: Record, founder: str, identity: str | None) -> Record:
    recipe = {"control": RANDOM_VECTOR, "founder": founder}
    return Record(control_id(best.id), best.generation, CONTROL, (best.id,), recipe, identity)
