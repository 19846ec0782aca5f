"""What strategies are told of a recorded run, against the ledger and the definition."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from merging.offspring.span import Span
from search.ledger.individuals import Individuals
from search.ledger.ledger import Ledger
from tests.search.runs import put_small_run


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(put_small_run(tmp_path)) as ledger:
        yield ledger


def test_everybody_is_there_with_genome_and_kinship(ledger: Ledger) -> None:
    facts = ledger.facts()
    assert facts is not None
    individuals = Individuals(ledger, facts)
    assert list(individuals.records.values()) == ledger.records()
    merged = [id for id, record in individuals.records.items() if record.identity is not None and id != "base"]
    assert {individuals.genome(id).coefficients.shape[1] for id in merged} == {len(individuals.span.ids)}
    expected = Span.over(ledger.table()).kinship(ledger.genomes(merged), "pcc")
    np.testing.assert_array_equal(individuals.kinship(merged).values, expected.values)
    assert individuals.closeness("near", "far") == expected["near", "far"] == individuals.closeness("far", "near")
    assert individuals.mean_kinship(["near", "far"]) == expected["near", "far"]
    assert individuals.mean_kinship(["near"]) is None


def test_complementarity_is_where_the_worse_beats_the_better(ledger: Ledger) -> None:
    facts = ledger.facts()
    assert facts is not None
    individuals = Individuals(ledger, facts)
    fitness = {id: individuals.records[id].fitness or 0.0 for id in ("near", "kin")}
    worse, better = sorted(fitness, key=lambda id: fitness[id])
    mine, theirs = (ledger.results(id, "search")["fake"] for id in (better, worse))
    beaten = [theirs[document] > value for document, value in mine.items()]
    assert individuals.complementarity("near", "kin") == sum(beaten) / len(beaten)
    assert individuals.complementarity("kin", "near") == individuals.complementarity("near", "kin")
