"""A search that keeps its ledger in Postgres, against the same search in a folder."""

import pytest

from kinship.errors import LedgerError
from search.coordinator import Search
from search.database import runs_in
from search.export import export_run, to_json
from search.ledger import Ledger
from search.place import Place, holds_run
from tests.search.postgres import Server
from tests.search.runs import Interrupted, Scene, interrupting

pytestmark = pytest.mark.xdist_group("postgres")


def test_a_run_in_postgres_is_the_run_in_a_file(postgres: Server, scene: Scene) -> None:
    url, folder = postgres.new_database(), scene.folder / "there"
    scene.run("here")
    with Search(scene.config(), folder, ledger=url, evaluator=scene.evaluator()) as search:
        search.run()
    assert not (folder / "ledger.sqlite").exists()
    assert holds_run(folder)
    with Ledger.of_run(folder) as ledger:
        assert ledger.place.run == "there"
        assert to_json(export_run(ledger)) == scene.text("here")


def test_interrupted_runs_of_one_database_are_resumed(postgres: Server, scene: Scene) -> None:
    url = postgres.new_database()
    scene.run("calm")
    evaluator = scene.evaluator(interrupting(9))
    with Search(scene.config(), scene.folder / "one", ledger=url, evaluator=evaluator) as search, \
            pytest.raises(Interrupted):  # fmt: skip
        search.run()
    with Search(scene.config(seed=7), scene.folder / "two", ledger=url, evaluator=scene.evaluator()) as search:
        search.run()
    with Search(scene.config(), scene.folder / "one", evaluator=scene.evaluator()) as search:  # the folder knows where
        search.run()
    assert runs_in(Place.parse(url, "one")) == ["one", "two"]
    with Ledger(Place.parse(url, "one")) as ledger:
        assert to_json(export_run(ledger)) == scene.text("calm")


def test_a_second_coordinator_of_the_same_run_refuses(postgres: Server, scene: Scene) -> None:
    url = postgres.new_database()
    with Search(scene.config(), scene.folder / "one", ledger=f"{url}#mine", evaluator=scene.evaluator()) as search:
        with pytest.raises(LedgerError, match=r"Another process is running .*#mine"):
            Search(scene.config(), scene.folder / "two", ledger=f"{url}#mine", evaluator=scene.evaluator())
        assert not holds_run(scene.folder / "two")
        search.run()
    Search(scene.config(), scene.folder / "two", ledger=f"{url}#mine", evaluator=scene.evaluator()).ledger.close()
