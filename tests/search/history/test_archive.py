"""A run taken out of its ledger and put into another is the same run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kinship.errors import LedgerError
from search.history.archive import archive, restore
from search.history.export import export_run, to_json
from search.ledger.ledger import Ledger
from search.ledger.location import LEDGER_NAME, LedgerLocation
from search.running.coordinator import Search
from tests.search.postgres import Server
from tests.search.runs import MANY, Interrupted, Scene, failing, interrupting, put_small_run


def content_of(scene: Scene, name: str) -> dict[str, Any]:
    """The archive, as it is after writing and reading."""
    with Ledger.of_run(scene.folder / name) as ledger:
        loaded: dict[str, Any] = json.loads(to_json(archive(ledger)))
        return loaded


def everything(ledger: Ledger) -> list[Any]:
    """All that can be asked of a ledger."""
    records = ledger.records()
    return [
        ledger.facts() and {**vars(ledger.facts()), "table": None},
        ledger.table().grams.tolist(), ledger.table().rows, records, ledger.stopped(), ledger.diary(),
        ledger.failures(), {id: genome.to_bytes() for id, genome in ledger.genomes(r.id for r in records).items()},
        {(r.id, split): ledger.results(r.id, split) for r in records for split in ("search", "held_out")},
        [(child.id, child.digest, {k: v.tolist() for k, v in child.row.items()}) for child in ledger.stored()],
    ]  # fmt: skip


RUNS: dict[str, dict[str, Any]] = {
    "race": {"race": {"enabled": True, "minimum": 6}, "strategy": {"k": 2}},
    "ties": {"merge": {"method": "ties", "parameters": {"density": 0.9, "weight": 0.5}}},
}


@pytest.mark.parametrize("kind", RUNS)
def test_everything_comes_back(scene: Scene, tmp_path: Path, kind: str) -> None:
    config = scene.config(**({"stop": {"generations": 2}} | RUNS[kind]))
    scene.run("run", config, scene.evaluator(failing("1-2"), tasks=MANY))
    content = content_of(scene, "run")
    with Ledger(tmp_path / LEDGER_NAME) as copy, Ledger.of_run(scene.folder / "run") as original:
        restore(content, copy)
        assert everything(copy) == everything(original)
        assert to_json(archive(copy)) == to_json(archive(original))
        assert to_json(export_run(copy)) == to_json(export_run(original))


@pytest.mark.xdist_group("postgres")
def test_into_postgres(scene: Scene, postgres: Server) -> None:
    scene.run("run", evaluator=scene.evaluator(failing("1-2")))
    with Ledger(LedgerLocation.parse(postgres.new_database(), "copy")) as copy:
        restore(content_of(scene, "run"), copy)
        assert to_json(export_run(copy)) == scene.text("run")


def test_an_unfinished_run_goes_on_where_it_was_put(scene: Scene) -> None:
    scene.run("calm")
    with pytest.raises(Interrupted):
        scene.run("run", evaluator=scene.evaluator(interrupting(9)))
    (scene.folder / "copy").mkdir()
    with Ledger(scene.folder / "copy" / LEDGER_NAME) as copy:
        restore(content_of(scene, "run"), copy)
    evaluator = scene.evaluator()
    with Search(scene.config(), scene.folder / "copy", evaluator=evaluator) as search:
        search.run()
    assert scene.text("copy") == scene.text("calm")
    assert len({id for id, _ in evaluator.calls}) < len(scene.records("calm"))


def damaged(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def make(content: dict[str, Any]) -> dict[str, Any]:
        change(content)
        return content

    return make


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: [], "Expected 'kinship.run-full/5', found None"),
        (lambda content: content | {"schema": "kinship.run/5"}, "found 'kinship.run/5'"),
        (damaged(lambda content: content.pop("gram")), "damaged: KeyError"),
        (damaged(lambda content: content.update(gram="!")), "damaged"),
        (damaged(lambda content: content["individuals"][4].update(genome="AAAA")), "damaged"),
        (damaged(lambda content: content.update(best="1-1")), "does not agree with itself"),
        (damaged(lambda content: content["individuals"][4].update(merge_gain=7.0)), "does not agree with itself"),
        (damaged(lambda content: content["individuals"][4].update(parents=["nobody"])), "damaged: IntegrityError"),
    ],
)
def test_what_is_no_archive(tmp_path: Path, damage: Any, reason: str) -> None:
    with Ledger(put_small_run(tmp_path)) as original:
        content = json.loads(to_json(archive(original)))
    with Ledger(tmp_path / "copy.sqlite") as copy, pytest.raises(LedgerError, match=reason):
        restore(damage(content), copy)
