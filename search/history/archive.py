"""A run as one JSON object that its ledger can be rebuilt from: the canonical export, and all that it leaves out.

The object does not depend on the tables of a ledger, so that it outlives them.
"""

import base64
import io
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy.exc import StatementError

from evaluators.scores.splits import SPLITS
from kinship.arrays import Float64
from kinship.errors import LedgerError
from kinship.measures.gram import GramTable
from merging.offspring.span import Genome
from search.config import parse_config
from search.history.export import export_run, to_json
from search.ledger.ledger import Ledger, RunFacts
from search.ledger.records import CONTROL, Entry, Failed, Record, StoredChild, Summary

SCHEMA = "kinship.run-full/5"


def archive(ledger: Ledger) -> dict[str, Any]:
    """The run in ``ledger``: see docs/formats.md. Large: every result by document.

    Raises `LedgerError` for an empty ledger.
    """
    content, facts = export_run(ledger), ledger.facts()
    assert facts is not None
    records = {record.id: record for record in ledger.records()}
    failures, genomes = ledger.failures(), ledger.genomes(records)
    gram = io.BytesIO()
    facts.table.save(gram)
    people = []
    for person in content["individuals"]:
        id = person["id"]
        more = {
            "batch": records[id].batch,
            "genome": _text(zlib.compress(genomes[id].to_bytes())) if id in genomes else None,
        }
        people.append(person | more | _outcomes(ledger, failures, id))
    return content | {
        "schema": SCHEMA,
        "budget": facts.budget,
        "gram": _text(gram.getvalue()),
        "individuals": people,
        "controls": [each | _outcomes(ledger, failures, each["id"]) for each in content["controls"]],
        "stored": [
            {"id": child.id, "digest": child.digest, "row": {key: _numbers(part) for key, part in child.row.items()}}
            for child in ledger.stored()
        ],
        "diary": [vars(entry) for entry in ledger.diary()],
    }


def restore(content: Mapping[str, Any], ledger: Ledger) -> None:
    """Write the run of `archive` into an empty ``ledger``, and check that it exports what ``content`` says.

    Raises `LedgerError` for what is no such object, or does not agree with itself; what was written by then remains.
    """
    if not isinstance(content, Mapping) or content.get("schema") != SCHEMA:
        given = content.get("schema") if isinstance(content, Mapping) else None
        raise LedgerError(
            f"Expected {SCHEMA!r}, found {given!r}: only that has all of a run.",
            hint="Make it with `kinship runs export --full`.",
        )
    try:
        _restore(content, ledger)
        found = export_run(ledger)
        wanted = {key: content[key] for key in found} | {
            "schema": found["schema"],
            "individuals": [_canonical(person) for person in content["individuals"]],
            "controls": [_canonical(control) for control in content["controls"]],
        }
    except (LookupError, ValueError, TypeError, AttributeError, zlib.error, StatementError) as error:
        raise LedgerError(f"The archive is damaged: {type(error).__name__}: {error}.") from error
    for each in wanted, found:  # intervals are drawn, and other versions of numpy may draw others
        del each["comparisons"]
        for control in each["controls"]:
            del control["splits"]
    if to_json(wanted) != to_json(found):
        raise LedgerError("The archive does not agree with itself: best, gains or scores do not follow from the rest.")


def _restore(content: Mapping[str, Any], ledger: Ledger) -> None:
    table = GramTable.load(io.BytesIO(_bytes(content["gram"])))
    config = parse_config(content["config"], "the archive's config")
    ledger.start(
        RunFacts(config, content["digests"], table, content["tasks"], content["conditions"], content["budget"])
    )
    people = content["individuals"]
    records = [
        Record(
            person["id"], person["generation"], person["role"], tuple(person["parents"]), person["recipe"],
            person["identity"], person["batch"], person["kinship_of_parents"], person["twin"],
        )
        for person in people
    ]  # fmt: skip
    genomes = {
        person["id"]: Genome.from_bytes(zlib.decompress(_bytes(person["genome"])), len(table.names))
        for person in people
        if person["genome"] is not None
    }
    stored = [
        StoredChild(
            child["id"], child["digest"], {key: np.array(part, dtype=np.float64) for key, part in child["row"].items()}
        )
        for child in content["stored"]
    ]
    ledger.add(records, genomes, stored=stored)
    by_id = {record.id: record for record in records}
    for control in content["controls"]:
        recipe, of = {key: control[key] for key in ("control", "founder")}, control["of"]
        made = Record(control["id"], by_id[of].generation, CONTROL, (of,), recipe, control["identity"])
        ledger.add([made], {})
    for person in [*people, *content["controls"]]:
        for failed in person["failures"]:
            ledger.record_failure(person["id"], Failed(**failed))
        for split, results in person["results"].items():
            found = {task: dict(zip(part["documents"], part["values"], strict=True)) for task, part in results.items()}
            ledger.record_results(person["id"], split, found)
    for split in SPLITS:
        everyone = [*people, *content["controls"]]
        scores = {person["id"]: person["scores"][split] for person in everyone if split in person["scores"]}
        summaries = {id: Summary(each["value"], each["stderr"], each["complete"], each) for id, each in scores.items()}
        ledger.record_scores(split, summaries)
    ledger.write_diary([Entry(**entry) for entry in content["diary"]])
    ledger.set_stopped(content["stopped"])


def _outcomes(ledger: Ledger, failures: Mapping[str, Sequence[Failed]], id: str) -> dict[str, Any]:
    """What became of an individual or a control, document by document."""
    return {
        "results": {split: _plain(found) for split in SPLITS if (found := ledger.results(id, split))},
        "failures": [vars(failed) for failed in failures.get(id, [])],
    }


def _canonical(person: Mapping[str, Any]) -> dict[str, Any]:
    extra = {"batch", "genome", "results", "failures"}
    return {key: value for key, value in person.items() if key not in extra}


def _plain(results: Mapping[str, Mapping[int, float]]) -> dict[str, dict[str, list[Any]]]:
    return {
        task: {"documents": sorted(values), "values": [values[document] for document in sorted(values)]}
        for task, values in results.items()
    }


def _numbers(part: Float64) -> Any:
    """Lists, with null for NaN: a product with weights that were gone."""
    plain = part.astype(object)
    plain[np.isnan(part)] = None
    return plain.tolist()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
