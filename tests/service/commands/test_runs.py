"""`kinship runs`: export, import, verify, compare, and runs in a database."""

import json
import sqlite3
from pathlib import Path

import pytest

from search.ledger.location import LEDGER_NAME
from search.running.coordinator import Search
from service.pages.contents import RunContents
from service.pages.report import write_report
from tests.conftest import MakeModel
from tests.search.postgres import Server
from tests.search.runs import Scene, failing, make_scene, put_small_run
from tests.service.conftest import Kinship


@pytest.fixture
def scene(make_model: MakeModel, tmp_path: Path) -> Scene:
    return make_scene(make_model, tmp_path)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The folder of a small run that is there already."""
    folder = tmp_path / "old"
    folder.mkdir()
    put_small_run(folder)
    return folder


def exported(kinship: Kinship, run: object, file: Path) -> Path:
    file.write_text(kinship("runs", "export", run, "--full").out)
    return file


def test_a_run_is_exported_and_imported(kinship: Kinship, old: Path, tmp_path: Path) -> None:
    file, out = exported(kinship, old, tmp_path / "full.json"), tmp_path / "new" / "run"
    outcome = kinship("runs", "import", file, out, "--json")
    told = json.loads(outcome.out)
    assert (told["schema"], told["folder"], told["individuals"]) == ("kinship.runs-import/1", str(out), 10)
    assert "children/" in outcome.err  # it has weights that are in no file
    assert kinship("runs", "export", out).out == kinship("runs", "export", old).out
    assert kinship("runs", "verify", out).code == 0
    assert sorted(path.name for path in out.iterdir()) == [LEDGER_NAME]

    refused = kinship("runs", "import", file, out)
    assert (refused.code, "exists already" in refused.err) == (1, True)
    assert kinship("runs", "import", file, out, "--force").code == 0


def test_what_cannot_be_imported_leaves_nothing(kinship: Kinship, old: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "export.json", tmp_path / "out"
    for content, reason in (("{", "no JSON"), (kinship("runs", "export", old).out, "--full")):
        file.write_text(content)
        outcome = kinship("runs", "import", file, out)
        assert (outcome.code, reason in outcome.err) == (1, True)
    assert kinship("runs", "import", tmp_path / "missing.json", out).code == 1
    assert not out.exists()
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("...")
    assert kinship("runs", "import", exported(kinship, old, file), precious, "--force").code == 1
    assert [path.name for path in precious.iterdir()] == ["thesis.tex"]


def test_verify_tells_what_is_wrong(kinship: Kinship, old: Path) -> None:
    sound = kinship("runs", "verify", old, "--json")
    told = json.loads(sound.out)
    assert (sound.code, told["schema"], told["run"], told["ok"]) == (0, "kinship.runs-verify/1", str(old), True)
    assert {check["name"] for check in told["checks"]} == {
        "database", "facts", "genomes", "descent", "scores", "replay"
    }  # fmt: skip
    with sqlite3.connect(old / LEDGER_NAME) as connection:
        connection.execute("UPDATE score SET value = 7 WHERE individual = '1-1'")
    connection.close()
    wrong = kinship("runs", "verify", old)
    assert wrong.code == 1
    assert "1-1 (search) does not follow from its documents" in wrong.out


def test_a_folder_that_is_not_there_has_no_runs_to_list(kinship: Kinship, tmp_path: Path) -> None:
    told = kinship("runs", "list", tmp_path / "nowhere")
    assert (told.code, told.out) == (1, "")
    assert "There is no folder" in told.err
    assert kinship("runs", "list", tmp_path).code == 0


def test_runs_are_compared_document_by_document(kinship: Kinship, scene: Scene, old: Path) -> None:
    first, second = scene.config(stop={"generations": 1}), scene.config(stop={"generations": 3})
    scene.run("first", first)
    scene.run("second", second, scene.evaluator(failing("1-2")))
    names = [scene.folder / "first", scene.folder / "second", old]
    told = json.loads(kinship("runs", "compare", *names, "--json").out)
    assert told["schema"] == "kinship.runs-compare/2"
    one, two, other = told["runs"]
    exports = [scene.export(name) for name in ("first", "second")]
    for row, export in zip((one, two), exports, strict=True):
        best = row["best_offspring"]
        assert best["id"] == export["best_offspring"]
        for split, gain in export["gain_over_best_founder"].items():
            found = best["gain_over_best_founder"][split]
            assert (found["value"], found["stderr"]) == pytest.approx((gain["value"], gain["stderr"]))
        assert row["evaluations"] == sum(person["generation"] > 0 for person in export["individuals"])
        assert row["documents"] == 8 * sum("search" in person["scores"] for person in export["individuals"])
    assert [row["failed"] for row in told["runs"]] == [0, 1, 1]
    assert one["versus_first"] == {}
    for split in ("search", "held_out"):
        difference = two["versus_first"][split]
        values = [row["best_offspring"]["scores"][split]["value"] for row in (two, one)]
        assert difference["value"] == pytest.approx(values[0] - values[1])
        assert difference["stderr"] > 0
    shown = kinship("runs", "compare", *names).out
    assert all(row["best_offspring"]["id"] in shown for row in told["runs"])
    assert f"{two['versus_first']['held_out']['value']:+.4f} ± " in shown
    assert other["versus_first"]["held_out"]["documents"] == 5
    assert kinship("runs", "compare", names[0]).code == 1


def test_runs_that_made_the_same_merges_are_called_identical(kinship: Kinship, scene: Scene) -> None:
    """The seed of a search that draws nothing changes nothing, and neither does a variant without a choice."""
    scene.run("vanilla", scene.config(strategy={"variant": "vanilla"}))
    scene.run("again", scene.config(strategy={"variant": "vanilla"}, seed=7))
    scene.run("kinship", scene.config(strategy={"variant": "kinship", "partner_pool": "all"}))
    scene.run("shorter", scene.config(strategy={"variant": "vanilla"}, stop={"generations": 1}))
    names = [str(scene.folder / name) for name in ("kinship", "vanilla", "again", "shorter")]
    told = json.loads(kinship("runs", "compare", *names, "--json").out)["runs"]
    assert [row["identical_to"] for row in told] == [None, None, names[1], None]
    shown = " ".join(kinship("runs", "compare", *names).out.split())
    assert "again is identical to run vanilla: the same merges." in shown
    assert shown.count("identical to") == 1
    views = {Path(name).name: RunContents.open(Path(name)) for name in names}
    write_report(scene.folder / "report.html", views, "Runs")
    page = (scene.folder / "report.html").read_text()
    assert "again is identical to run vanilla" in page
    assert views["kinship"].run.exploration_told in page.replace("&#39;", "'")


def test_show_says_how_many_partners_there_were(kinship: Kinship, scene: Scene) -> None:
    scene.run("run", scene.config(strategy={"variant": "random"}))
    rows = scene.export("run")["exploration"]
    shown = " ".join(kinship("runs", "show", scene.folder / "run").out.split())
    assert "Partners to choose from, by generation: 2: " in shown
    assert len(rows) == 2
    scene.run("vanilla", scene.config(strategy={"variant": "vanilla"}))
    assert "Partners" not in kinship("runs", "show", scene.folder / "vanilla").out


@pytest.mark.xdist_group("postgres")
def test_runs_in_a_database(kinship: Kinship, scene: Scene, postgres: Server, old: Path) -> None:
    url, folder = postgres.new_database(), scene.folder / "there"
    with Search(scene.config(), folder, ledger=url, evaluator=scene.evaluator()) as search:
        search.run()
    file = exported(kinship, old, scene.folder / "full.json")
    assert kinship("runs", "import", file, scene.folder / "copy", "--ledger", f"{url}#imported").code == 0
    taken = kinship("runs", "import", file, scene.folder / "again", "--ledger", f"{url}#imported")
    assert (taken.code, "exists already" in taken.err) == (1, True)
    assert not (scene.folder / "again").exists()

    rows = json.loads(kinship("runs", "list", url, "--json").out)["runs"]
    assert [row["folder"].rpartition("#")[2] for row in rows] == ["imported", "there"]
    assert kinship("runs", "export", rows[0]["folder"]).out == kinship("runs", "export", old).out
    local = json.loads(kinship("runs", "list", scene.folder, "--json").out)["runs"]
    assert [Path(row["folder"]).name for row in local] == ["copy", "old", "there"]
    by_name = kinship("runs", "export", f"{url}#there")
    assert (by_name.code, by_name.out) == (0, kinship("runs", "export", folder).out)
    assert kinship("runs", "verify", f"{url}#there").code == 0
    assert kinship("runs", "show", f"{url}#nothing").code == 1
    assert kinship("tree", folder).code == 0


@pytest.mark.xdist_group("postgres")
def test_evolve_into_a_database(kinship: Kinship, run_file: Path, postgres: Server, tmp_path: Path) -> None:
    url, out = postgres.new_database(), tmp_path / "runs" / "first"
    evolve = ("evolve", run_file, "--out", out, "--ledger", url)
    assert kinship(*evolve).code == 0
    assert {"ledger.json", "report.html", "export.json"} <= {path.name for path in out.iterdir()}
    assert not (out / LEDGER_NAME).exists()
    assert kinship("runs", "export", out).out == (out / "export.json").read_text()
    elsewhere = tmp_path / "elsewhere"
    refused = kinship("evolve", run_file, "--out", elsewhere, "--ledger", f"{url}#first")
    assert (refused.code, "#first exists already" in refused.err) == (1, True)
    assert not elsewhere.exists()
    assert kinship("evolve", run_file, "--out", out, "--resume").code == 0  # the folder knows where its run is
    assert kinship(*evolve).code == 1
    assert kinship(*evolve, "--force").code == 0
    assert kinship("runs", "export", out).out == (out / "export.json").read_text()
